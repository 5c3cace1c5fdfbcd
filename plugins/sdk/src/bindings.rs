//! Bindings generated from `wit/`.

#![allow(missing_docs, reason = "wit/plugin.wit documents each item")]

wit_bindgen::generate!({
    path: "../../wit",
    world: "plugin",
    pub_export_macro: true,
    default_bindings_module: "geoworker_sdk::bindings",
    additional_derives: [PartialEq, serde::Serialize, serde::Deserialize],
});
