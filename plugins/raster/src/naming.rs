//! Names of blobs and items.

use geoworker_sdk::serde_json::Value;
use geoworker_sdk::{BlobRef, params};

/// Container of the silver zone that outputs go to.
pub const OUTPUT_CONTAINER: &str = "cogs";

/// The source blob of parameters with `container_name` and `blob_name`.
pub fn source(values: &Value) -> BlobRef {
    BlobRef {
        zone: "bronze".into(),
        container: params::text(values, "container_name").to_owned(),
        name: params::text(values, "blob_name").to_owned(),
    }
}

/// Where the COG of a source goes: `{output_folder}/{file}_cog_{tier}.tif`. Without a folder the source's container
/// and folders are kept, so that equal file names in different folders stay apart.
pub fn target(values: &Value, tier: &str) -> BlobRef {
    let source = source(values);
    let stem = without_extension(&source.name);
    let name = match params::optional(values, "output_folder") {
        Some(folder) => {
            format!("{}/{}_cog_{tier}.tif", folder.trim_matches('/'), stem.rsplit('/').next().unwrap_or(stem))
        }
        None => format!("{}/{stem}_cog_{tier}.tif", source.container),
    };
    BlobRef { zone: "silver".into(), container: OUTPUT_CONTAINER.into(), name }
}

/// Whether a text can be the folder of outputs, by the rules of blob names; the empty one means none. The host checks the
/// whole name again, but only when the output is there.
pub fn is_folder(folder: &str) -> bool {
    let odd = |c: char| c.is_control() || matches!(c, '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|');
    let plain = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.contains(odd);
    folder.is_empty() || folder.trim_matches('/').split('/').all(plain)
}

/// The blob beside `blob` with another extension.
pub fn beside(blob: &BlobRef, extension: &str) -> BlobRef {
    BlobRef { name: format!("{}.{extension}", without_extension(&blob.name)), ..blob.clone() }
}

/// A STAC item id made of a blob's name.
pub fn item_id(blob: &BlobRef) -> String {
    let plain = |c: char| if c.is_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' };
    without_extension(&blob.name).chars().map(plain).collect()
}

fn without_extension(name: &str) -> &str {
    let file = name.rfind('/').map_or(0, |slash| slash + 1);
    name[file..].rfind('.').filter(|dot| *dot > 0).map_or(name, |dot| &name[..file + dot])
}

#[cfg(test)]
mod tests {
    use geoworker_sdk::serde_json::json;

    use super::*;

    #[test]
    fn outputs_keep_folders_apart_unless_told() {
        let values = json!({"container_name": "in", "blob_name": "a.b/scene.v2.tif"});
        assert_eq!(target(&values, "analysis").name, "in/a.b/scene.v2_cog_analysis.tif");
        let values = json!({"container_name": "in", "blob_name": "a/scene.tif", "output_folder": "/out/x/"});
        let cog = target(&values, "archive");
        assert_eq!(cog.name, "out/x/scene_cog_archive.tif");
        assert_eq!(beside(&cog, "json").name, "out/x/scene_cog_archive.json");
        assert_eq!(item_id(&cog), "out-x-scene_cog_archive");
        assert_eq!(without_extension("folder.d/file"), "folder.d/file");
        assert!(
            is_folder("")
                && is_folder("/out/x/")
                && !is_folder("../x")
                && !is_folder("a//b")
                && !is_folder("/")
                && !is_folder("a\nb")
                && !is_folder("a:b")
        );
    }
}
