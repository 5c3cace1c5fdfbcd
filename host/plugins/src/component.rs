//! From a file's bytes to a component of the right world, before anything is compiled.

use std::borrow::Cow;

use geoworker_machine::{ErrorInfo, codes};
use wasmtime::{Engine, Module};
use wit_component::{ComponentEncoder, DecodedWasm};

/// Interfaces of the contract, as imports and exports name them.
const PACKAGE: &str = "geoworker:plugin/";
/// Major version that this host serves.
const VERSION: &str = "@1.";

/// Makes a component of a core module, where it is one, and checks what it imports and exports.
///
/// # Errors
/// `PLUGIN_NOT_WASM`, `PLUGIN_WORLD_MISMATCH` or `PLUGIN_IMPORT_UNKNOWN`.
pub(crate) fn prepare<'a>(engine: &Engine, bytes: &'a [u8]) -> Result<Cow<'a, [u8]>, ErrorInfo> {
    const CORE: &[u8] = b"\0asm\x01\0\0\0";
    const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
    let component = if bytes.starts_with(CORE) {
        Cow::Owned(componentise(engine, bytes)?)
    } else if bytes.starts_with(COMPONENT) {
        Cow::Borrowed(bytes)
    } else {
        let message = "the file does not begin like a WebAssembly module or component";
        return Err(ErrorInfo::permanent(codes::PLUGIN_NOT_WASM, message));
    };
    check_world(&component)?;
    Ok(component)
}

fn componentise(engine: &Engine, module: &[u8]) -> Result<Vec<u8>, ErrorInfo> {
    // The encoder takes a module's structure on trust, and panics where a file is cut off.
    Module::validate(engine, module).map_err(|error| {
        let reason = error.root_cause().to_string();
        ErrorInfo::permanent(codes::PLUGIN_NOT_WASM, format!("not a valid module: {}", first_line(&reason)))
    })?;
    let encoded =
        ComponentEncoder::default().validate(true).module(module).and_then(ComponentEncoder::encode);
    encoded.map_err(|error| {
        let reason = error.root_cause().to_string();
        let message = format!("the core module cannot be made a component: {}", first_line(&reason));
        ErrorInfo::permanent(codes::PLUGIN_WORLD_MISMATCH, message)
    })
}

fn check_world(component: &[u8]) -> Result<(), ErrorInfo> {
    let mismatch = |message: String| ErrorInfo::permanent(codes::PLUGIN_WORLD_MISMATCH, message);
    let decoded = wit_component::decode(component);
    let decoded = decoded.map_err(|error| {
        ErrorInfo::permanent(
            codes::PLUGIN_NOT_WASM,
            format!("not a valid component: {}", first_line(&error.to_string())),
        )
    })?;
    let DecodedWasm::Component(resolve, world) = decoded else {
        return Err(mismatch("the file holds WIT, not a component".into()));
    };
    let world = &resolve.worlds[world];
    let foreign = world.imports.keys().map(|key| resolve.name_world_key(key)).find(|name| !ours(name));
    if let Some(name) = foreign {
        let message = format!("the component imports '{name}', which the host does not offer");
        return Err(ErrorInfo::permanent(codes::PLUGIN_IMPORT_UNKNOWN, message));
    }
    let exports: Vec<String> = world.exports.keys().map(|key| resolve.name_world_key(key)).collect();
    let wanted = |name: &str| {
        ["task-types", "job-types"].iter().any(|known| name == format!("{PACKAGE}{known}@1.0.0"))
    };
    if exports.iter().any(|name| wanted(name)) {
        return Ok(());
    }
    let found = if exports.is_empty() { "nothing".to_owned() } else { exports.join(", ") };
    Err(mismatch(format!(
        "the component exports {found}; a plugin exports {PACKAGE}task-types@1.0.0 or job-types"
    )))
}

fn ours(name: &str) -> bool {
    name.starts_with(PACKAGE) && name.contains(VERSION)
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(300).collect()
}
