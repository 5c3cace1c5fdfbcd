//! Every code that a user can meet: what it means and what to do. `geoworker explain` prints this table.

/// One code.
#[derive(Debug, Clone, Copy)]
pub struct Code {
    /// Stable name.
    pub name: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// What to do.
    pub action: &'static str,
}

macro_rules! codes {
    ($($name:ident: $meaning:literal, $action:literal;)+) => {
        $(#[doc = $meaning] pub const $name: &str = stringify!($name);)+
        /// All codes, by subject.
        pub const CATALOGUE: &[Code] =
            &[$(Code { name: stringify!($name), meaning: $meaning, action: $action }),+];
    };
}

codes! {
    CONFIG_INVALID: "A setting is missing, contradictory or has an invalid value.", "Correct every setting that the message names, then start again.";
    HTTP_BIND: "The address for HTTP cannot be listened on.", "Free it, or set GEOWORKER_HTTP to another one; port 0 takes any that is free, `off` none.";
    HTTP_ROUTE_UNKNOWN: "There is nothing at this address.", "GET /api/openapi.json tells what there is; modes without the job API serve only /livez, /readyz, /health and /metrics.";
    HTTP_METHOD: "This address does not take this method.", "Use one that the header `Allow` names.";
    HTTP_REQUEST_INVALID: "The request cannot be read.", "Send a JSON object with the content type application/json, and only query parameters that GET /api/openapi.json names.";
    HTTP_BODY_TOO_LARGE: "The request's body is too large.", "Send at most what GET /api/limits names; rasters go into a zone, not into a request.";
    HTTP_UNAUTHORIZED: "The bearer token is missing or wrong.", "Send `Authorization: Bearer TOKEN` with the value of GEOWORKER_API_TOKEN.";
    HTTP_FORBIDDEN: "The request comes by a foreign name or from a foreign web page.", "Use 127.0.0.1 or localhost, or set GEOWORKER_API_TOKEN.";
    HTTP_RATE_LIMITED: "Too many requests.", "Try again after the time in the header `Retry-After`.";
    HTTP_TIMEOUT: "The request took too long.", "Try again; if it lasts, look at the database.";
    STARTING: "The server does not have its database yet.", "Try again; /readyz tells when it is ready.";
    DATA_DIR_IN_USE: "Another server already runs on this data directory.", "Stop it, submit to it (`geoworker submit`), or give this one another --data-dir.";
    DATA_DIR_UNUSABLE: "The data directory cannot be created or written.", "Check its permissions and the free space, or give another --data-dir.";
    DATABASE_UNAVAILABLE: "The database did not answer or refused a statement.", "The platform retries. If it lasts, check the disk and the data directory's permissions.";
    DATABASE_DENIED: "The database refuses the credentials, or there is no token to show it.", "Check POSTGRES_USER and POSTGRES_PASSWORD, or the identity of this process, and the server's access rules.";
    DATABASE_SCHEMA: "The database was written by another version of geoworker.", "Start the version that wrote it, or give another --data-dir.";
    QUEUE_UNAVAILABLE: "The message queue did not answer.", "The platform retries and nothing is lost. If it lasts, check the network and the broker.";
    QUEUE_DENIED: "The broker refuses the credentials, or there is no token to show it.", "Check ServiceBusConnection, or the identity of this process: it needs to send and to listen on the four queues.";
    QUEUE_NOT_FOUND: "The broker has no queue of this name.", "Create the queues of `geoworker config show`, or set the SERVICE_BUS_*_QUEUE variables.";
    DISK_FULL: "No space is left for scratch, outputs or the database, or an operation needs more of it than it may have.", "Free space, or raise `GEOWORKER_NATIVE_DISK_MB` where the message names a budget; the platform goes on by itself where it can.";
    JOB_TYPE_UNKNOWN: "No loaded plugin offers this job type.", "`geoworker plugin list` shows the job types and any plugin that failed to load.";
    TASK_TYPE_UNKNOWN: "No loaded plugin offers this task type.", "`geoworker plugin list` shows the task types. Tasks of a missing type wait until it is there.";
    JOB_NOT_FOUND: "There is no job with this id.", "`geoworker jobs` lists jobs; the first digits of an id are enough when they are unique.";
    JOB_RUNNING: "The job has not ended yet.", "Wait for its end, or cancel it; then its failed tasks can be retried.";
    TASK_NOT_FOUND: "There is no task with this id.", "`geoworker tasks list JOB` lists the tasks of a job; the first digits of an id are enough when they are unique.";
    TASK_OVER: "The task has ended; a final state is never left.", "`geoworker tasks retry` makes a new run of its job in which it is tried again.";
    TASK_NOT_FAILED: "The task did not fail in the job's last stage, so that there is nothing to retry.", "`geoworker tasks list JOB` shows the tasks that failed; `geoworker jobs rerun` runs all of the job again.";
    TASK_CANCELLED: "Somebody cancelled the task.", "`geoworker tasks retry` makes a new run of its job in which it is tried again.";
    JOURNAL_LIMIT: "The task's operations have more or larger answers than may be remembered.", "Tell the plugin's author: split the task, or ask for smaller answers.";
    JOB_OVER: "The job has ended; a final state is never left.", "Submit it again with --force for a new run.";
    PARAM_INVALID: "A parameter is unknown, missing, of the wrong type or out of range.", "`geoworker plugin inspect TYPE` prints the parameters with their types and limits.";
    PARAM_INCOMPATIBLE: "Parameters contradict each other or the raster's type.", "Choose one of the alternatives that the message names.";
    BLOB_NOT_FOUND: "The blob does not exist.", "`geoworker blobs list ZONE` shows what is there; `geoworker blobs put` adds a file.";
    BLOB_NAME_INVALID: "The name of a blob would leave its zone or is not portable.", "Use a relative name of letters, digits and common signs, without `..`, `//` or control characters.";
    BLOB_ZONE_UNKNOWN: "There is no such zone.", "Use `bronze` for inputs and `silver` for outputs.";
    BLOB_ACCESS_DENIED: "A plugin used a zone that it did not declare.", "Tell the plugin's author: the zone and access belong into `zones` of `describe`.";
    BLOB_STORAGE: "Blob storage failed.", "The platform retries. If it lasts, check the storage.";
    BLOB_STORAGE_UNAVAILABLE: "Blob storage does not answer.", "The work waits for it and loses no attempt. If it lasts, check the network and the storage account.";
    BLOB_STORAGE_DENIED: "Blob storage refuses the credentials, or they do not reach so far.", "Check the storage account's connection string, or that the identity of this process may read bronze and write silver.";
    FILE_EMPTY: "The file has no bytes.", "Upload the file again; the transfer was probably cut off.";
    FILE_TOO_LARGE: "The file is above the size limit for submission.", "Split the file or ask the operator to raise the limit that the message names.";
    FILE_UNREADABLE: "The file cannot be read as a raster.", "Check that it is a raster in an allowed format and that it opens with gdalinfo; upload it again if it was cut off.";
    CRS_MISSING: "The raster names no coordinate reference system.", "Submit again with `input_crs`, for example EPSG:32618.";
    CRS_INVALID: "A coordinate reference system is not understood.", "Use an authority code such as EPSG:4326.";
    CRS_MISMATCH: "`input_crs` means something else than the CRS in the raster.", "Leave `input_crs` away, or check which of the two is right.";
    RASTER_EMPTY: "Nearly all pixels are nodata.", "Check the source. Without `strict_mode`, 90 to 99 % only warns.";
    RASTER_NODATA_CONFLICT: "The nodata value is doubtful: bands differ, or pixels look like nodata and are not declared.", "Declare one nodata value in the source.";
    RASTER_EXTREME_VALUES: "Values of 1e30 or more on continuous data.", "They are mostly an undeclared nodata value: declare it in the source.";
    RASTER_TYPE_MISMATCH: "The raster is not of the type that was asked for.", "Use the type that the message names, or `auto`.";
    RASTER_BAND_INVALID: "The raster has no band or more than 100.", "Split the raster by bands.";
    RASTER_UNSUPPORTED: "The encoder cannot represent this raster with these settings.", "Use the alternative that the message names.";
    BIT_DEPTH_WASTE: "The data type is larger than the values need.", "Consider a smaller data type; the result is right either way.";
    BOUNDS_SUSPICIOUS: "The georeferencing is doubtful.", "Check the geotransform and CRS of the source.";
    RASTER_INVALID: "The raster was refused by validation.", "The findings name the causes.";
    COG_INVALID: "The encoded file did not pass its verification and was not published.", "Report it with the source's gdalinfo output; the source is untouched.";
    GDAL_ERROR: "GDAL failed.", "The message is GDAL's own; check the source with gdalinfo.";
    NATIVE_CRASH: "The native process ended by a signal.", "The attempt is retried. If it repeats, the source probably hits a defect in GDAL: report it. Signal 9 from outside: look for who killed it, and whether the machine ran out of memory.";
    MEMORY: "A native operation hit its memory limit, or needs more than it may have.", "It was tried again with less. Raise `GEOWORKER_NATIVE_MEMORY_MB` (one operation) or `GEOWORKER_MEMORY_MB` (all together), or submit a smaller raster.";
    TIMEOUT: "The operation or task took longer than allowed.", "Raise the limit that the message names, or submit a smaller raster.";
    NATIVE_PROTOCOL: "The native process ended without a result.", "The attempt is retried. If it repeats, look at the worker's log.";
    PLUGIN_FILE: "The plugin file cannot be read or has an unreasonable size.", "Copy it, as a file of its own and no link to another folder, to the plugin directory again.";
    PLUGIN_NOT_WASM: "The plugin file is not a WebAssembly module or component.", "Build it with `wasm32-unknown-unknown` or as a component; docs/plugins.md shows how.";
    PLUGIN_WORLD_MISMATCH: "The component does not export what a plugin must export.", "Build it against package geoworker:plugin@1.0.0 in wit/.";
    PLUGIN_IMPORT_UNKNOWN: "The component imports something that the host does not offer.", "Plugins get only the interfaces of geoworker:plugin@1.0.0; remove the import that the message names.";
    PLUGIN_METADATA: "The plugin's metadata section is not valid.", "Write the custom section `geoworker-plugin` again; docs/operators.md shows what it holds.";
    PLUGIN_COMPILE: "The component does not compile.", "Build it again; the message is the compiler's.";
    PLUGIN_NOT_PRECOMPILED: "There is no compiled form of the plugin, and compiling is switched off.", "Fill the folder of GEOWORKER_PLUGIN_CACHE with `geoworker plugin precompile` of this version, or set GEOWORKER_PLUGIN_COMPILE=on.";
    PLUGIN_NOT_LOCKED: "The plugin file is not the one that plugins.lock names.", "Check where the file comes from; if it is right, run `geoworker plugin lock`.";
    PLUGIN_SIGNATURE: "A key or signature of a plugin is missing, not valid or not known.", "Sign the file with `geoworker plugin sign FILE --key KEY`, or add its public key to the file that GEOWORKER_PLUGIN_KEYS names.";
    PLUGIN_DESCRIBE: "The plugin failed while describing itself.", "The message says which call or limit; tell the plugin's author.";
    PLUGIN_SCHEMA: "A name or JSON Schema in the plugin's description is not valid.", "Tell the plugin's author.";
    PLUGIN_CONFLICT: "Another plugin already offers a type of this name.", "Remove one of the two files that the message names.";
    PLUGIN_TRAP: "The plugin crashed.", "Tell the plugin's author; the task's log has the details.";
    PLUGIN_CPU_LIMIT: "The plugin used more CPU time than allowed in one call.", "Tell the plugin's author, or raise `cpu_ms` in limits.toml.";
    PLUGIN_MEMORY_LIMIT: "The plugin asked for more memory than allowed.", "Tell the plugin's author, or raise `memory_mib` in limits.toml.";
    PLUGIN_OUTPUT_LIMIT: "The plugin passed more data to the host than allowed.", "Tell the plugin's author, or raise `transfer_kib`, `string_kib` or `list_items` in limits.toml.";
    PLUGIN_CALL_LIMIT: "The plugin called the host more often than allowed in one call.", "Tell the plugin's author, or raise `host_calls` in limits.toml.";
    PLUGIN_OUTPUT_INVALID: "The plugin returned something that breaks the contract.", "Tell the plugin's author; the message says what.";
    OPERATION_NOT_DECLARED: "The plugin asked for an operation that it did not declare.", "Tell the plugin's author: it belongs into `operations` of `describe`.";
    STAC_INVALID: "The STAC item lacks a required member.", "Tell the plugin's author; the message names the member.";
    MESSAGE_INVALID: "A queue message cannot be parsed.", "It was dead-lettered; whoever sent it must follow the message format.";
    ATTEMPTS_EXHAUSTED: "Every attempt ended without an answer: its workers were lost.", "Look at the workers' logs and at the memory and time limits.";
    STAGE_FAILED: "Tasks of a stage failed and the stage does not allow failures.", "`geoworker jobs show` lists the failed tasks with their codes.";
    WORKER_FAULT: "The worker failed outside of the task's own work.", "The attempt is retried. If it repeats, look at the worker's log.";
    USAGE: "The command line is wrong.", "Run the command with --help.";
    INTERRUPTED: "The command was interrupted.", "What was accepted goes on when a server runs again.";
}

/// Looks a code up.
#[must_use]
pub fn find(name: &str) -> Option<&'static Code> {
    CATALOGUE.iter().find(|code| code.name.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_say_what_to_do() {
        for (position, code) in CATALOGUE.iter().enumerate() {
            assert_eq!(CATALOGUE.iter().position(|other| other.name == code.name), Some(position));
            assert!(code.meaning.ends_with('.') && code.action.ends_with('.'), "{}", code.name);
        }
        assert!(find("blob_not_found").is_some());
    }
}
