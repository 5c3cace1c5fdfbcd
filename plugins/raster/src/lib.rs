//! Raster task and job types: the decisions. Pixels are the host's.

mod cog;
mod detect;
#[cfg(test)]
mod fixtures;
mod jobs;
mod naming;
mod settings;
mod stac;
mod validate;

use geoworker_sdk::export_plugin;

export_plugin! {
    tasks: [validate::ValidateRaster, cog::CreateCog, stac::ExtractStacMetadata],
    jobs: [jobs::ValidateRasterJob, jobs::ProcessRaster]
}
