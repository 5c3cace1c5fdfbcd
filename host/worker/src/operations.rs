//! The operations that handlers ask for: raster work in child processes, blobs, the catalogue.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use chrono::SecondsFormat;
use geoworker_blobs::{BlobError, BlobFacts, BlobRef, Fence, Output, Source};
use geoworker_machine::{ErrorInfo, codes, retry};
use geoworker_plugins::{CONTRACT, HostServices, JournaledOperation, OperationError, UnitResult};
use geoworker_raster::model::CogOptions;
use geoworker_raster::native::Operation;
use geoworker_raster::{OUTPUT_OBJECT, SOURCE_OBJECT};
use geoworker_store::records::{Fenced, JournalEntry, Renewal, Task};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::keeper::Progress;
use crate::objects::Objects;
use crate::platform::Platform;
use crate::submit::blob_error;
use crate::supervisor::{Assignment, Native, NativeFailure, Report};

type Answer = Result<Value, OperationError>;

/// Members that a STAC item must have before it is written.
const ITEM_MEMBERS: &[&str] = &["type", "stac_version", "id", "geometry", "properties", "links", "assets"];

/// Operations that one task may have remembered, and bytes of their answers.
const JOURNAL_ENTRIES: u32 = 10_000;
const JOURNAL_BYTES: usize = 16 << 20;

/// What an attempt waits for that cannot go on now.
pub(crate) type Deferral = Arc<Mutex<Option<String>>>;

/// How much of a task is remembered.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Journaled {
    entries: u32,
    bytes: usize,
}

impl Journaled {
    pub(crate) fn of(journal: &[JournalEntry]) -> Self {
        let mut journaled = Self::default();
        journal.iter().for_each(|entry| journaled.add(&entry.outcome));
        journaled
    }

    fn add(&mut self, outcome: &Value) {
        self.entries += 1;
        self.bytes += outcome.to_string().len();
    }

    fn check(self) -> Result<(), OperationError> {
        if self.entries <= JOURNAL_ENTRIES && self.bytes <= JOURNAL_BYTES {
            return Ok(());
        }
        let message = format!(
            "{} operations with {} KiB of answers; at most {JOURNAL_ENTRIES} with {} KiB are remembered",
            self.entries,
            self.bytes >> 10,
            JOURNAL_BYTES >> 10
        );
        Err(failed(codes::JOURNAL_LIMIT, message))
    }
}

/// Services of one attempt.
pub(crate) struct TaskServices {
    pub(crate) platform: Platform,
    pub(crate) task: Task,
    pub(crate) plugin_digest: String,
    pub(crate) native: Native,
    pub(crate) progress: Progress,
    /// Cancelled when the attempt must end: lease lost, shutdown or time-out.
    pub(crate) over: CancellationToken,
    pub(crate) started: Instant,
    /// What finished operations depend on.
    pub(crate) binding: String,
    pub(crate) journaled: Journaled,
    pub(crate) deferred: Deferral,
}

#[async_trait]
impl HostServices for TaskServices {
    async fn perform(&mut self, operation: &str, request: Value) -> Answer {
        if self.over.is_cancelled() {
            return Err(aborted());
        }
        let started = Instant::now();
        let mut outcome = self.dispatch(operation, &request).await;
        if let Err(OperationError::Failed(info)) = &outcome
            && info.code == codes::BLOB_STORAGE_UNAVAILABLE
            && !self.platform.storage_is_reached().await
        {
            outcome = Err(self.wait_for(info.message.clone()));
        }
        let code = match &outcome {
            Err(OperationError::Failed(info)) => Some(info.code.clone()),
            _ => None,
        };
        let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(operation, duration_ms = ms, code, "operation finished");
        self.platform.metrics.operation_ended(operation, outcome.is_ok());
        outcome
    }

    async fn record(&mut self, entry: JournaledOperation) -> Result<(), OperationError> {
        let entry = JournalEntry {
            sequence: entry.sequence,
            operation: entry.operation,
            request_hash: entry.request_hash,
            outcome: entry.outcome,
            duration_ms: i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX),
        };
        self.journaled.add(&entry.outcome);
        self.journaled.check()?;
        let (task, binding) = (&self.task, &self.binding);
        match self.platform.store.record(&task.task_id, task.lease_epoch, binding, entry).await {
            Ok(Fenced::Accepted) => Ok(()),
            Ok(Fenced::Stale) => Err(OperationError::Aborted("the lease was lost".into())),
            Err(error) => Err(OperationError::Aborted(error.to_string())),
        }
    }

    fn log(&mut self, level: &str, message: &str) {
        match level {
            "debug" => tracing::debug!(source = "plugin", "{message}"),
            "warn" => tracing::warn!(source = "plugin", "{message}"),
            "error" => tracing::error!(source = "plugin", "{message}"),
            _ => tracing::info!(source = "plugin", "{message}"),
        }
    }

    fn progress(&mut self, fraction: f32, message: &str) {
        set(&self.progress, f64::from(fraction), message);
    }

    async fn result_count(&mut self, _: u32) -> Result<u32, OperationError> {
        Ok(0)
    }

    async fn result_page(&mut self, _: u32, _: u32, _: u32) -> Result<Vec<UnitResult>, OperationError> {
        Ok(Vec::new())
    }
}

impl TaskServices {
    async fn dispatch(&self, operation: &str, request: &Value) -> Answer {
        match operation {
            "raster.inspect" => self.inspect(request).await,
            "raster.statistics" => self.statistics(request).await,
            "raster.validate-cog" => self.validate_cog(request).await,
            "raster.create-cog" => self.create_cog(request).await,
            "raster.preview" => self.preview(request).await,
            "blobs.stat" => self.stat(request).await,
            "blobs.list" => self.list(request).await,
            "blobs.put-json" => self.put_json(request).await,
            "blobs.copy" => self.copy(request).await,
            "catalog.publish-item" => self.publish_item(request).await,
            other => {
                Err(failed(codes::OPERATION_NOT_DECLARED, format!("the host has no operation '{other}'")))
            }
        }
    }

    async fn inspect(&self, request: &Value) -> Answer {
        let input_crs = part(request, "input_crs")?;
        let (source, objects) = self.source(request).await?;
        self.native(Operation::Inspect { source, input_crs }, objects).await
    }

    async fn statistics(&self, request: &Value) -> Answer {
        let max_pixels = part(request, "max_pixels")?;
        let (source, objects) = self.source(request).await?;
        self.native(Operation::Statistics { source, max_pixels }, objects).await
    }

    async fn validate_cog(&self, request: &Value) -> Answer {
        let (source, objects) = self.source(request).await?;
        self.native(Operation::ValidateCog { source }, objects).await
    }

    async fn create_cog(&self, request: &Value) -> Answer {
        let options: CogOptions = whole(request)?;
        let (source, objects) = self.source(request).await?;
        self.produce(request, objects, |target| Operation::CreateCog { source, target, options }).await
    }

    async fn preview(&self, request: &Value) -> Answer {
        let max_edge: u32 = part(request, "max_edge")?;
        let max_edge = max_edge.clamp(16, 4096);
        let (source, objects) = self.source(request).await?;
        self.produce(request, objects, |target| Operation::Preview { source, target, max_edge }).await
    }

    /// Runs an operation that writes a blob, and publishes it while the lease is held. B2: a stale worker cannot publish.
    async fn produce(
        &self,
        request: &Value,
        mut objects: Objects,
        operation: impl FnOnce(PathBuf) -> Operation,
    ) -> Answer {
        let target: BlobRef = part(request, "target")?;
        let zones = &self.platform.zones;
        let output = zones.create(&target).await.map_err(|error| self.blob_failed(error))?;
        let path = match &output {
            Output::File(staged) => staged.path.clone(),
            Output::Object(upload) => {
                objects.output = Some(Arc::clone(upload));
                OUTPUT_OBJECT.into()
            }
        };
        let mut answer = self.native(operation(path), objects).await?;
        self.still_held().await?;
        zones.publish(output, Some(&self.fence())).await.map_err(|error| self.blob_failed(error))?;
        answer["target"] = json!(target);
        Ok(answer)
    }

    /// A lease that is lost between the look and the publication shows at the zone itself.
    fn fence(&self) -> Fence {
        // As the claim left it: the keeper's renewals are not in this copy of the row.
        let claimed_at = self.task.lease_until - self.platform.settings.lease_ms();
        Fence { owner: self.task.task_id.to_string(), epoch: self.task.lease_epoch, claimed_at }
    }

    async fn still_held(&self) -> Result<(), OperationError> {
        let (task, lease) = (&self.task, self.platform.settings.lease_ms());
        match self.platform.store.renew(&task.task_id, task.lease_epoch, lease, None).await {
            Ok(Renewal::Held) if !self.over.is_cancelled() => Ok(()),
            Ok(_) => Err(aborted()),
            Err(error) => Err(OperationError::Aborted(error.to_string())),
        }
    }

    async fn native(&self, operation: Operation, objects: Objects) -> Answer {
        let name = format!("{}-{}", self.task.task_id.short(), self.task.lease_epoch);
        let root = &self.platform.settings.scratch;
        let scratch = self.platform.scratch.create(root, &name);
        let scratch = scratch.map_err(|error| self.blob_failed(error.into()))?;
        let limit =
            Duration::from_secs(u64::from(self.task.timeout_seconds)).saturating_sub(self.started.elapsed());
        let progress = Arc::clone(&self.progress);
        let verb = if operation.target().is_some() { "encoding" } else { "reading" };
        let mut report = move |report: Report| match report {
            Report::Fraction(fraction) => set(&progress, fraction, verb),
            Report::Waiting(reason) => set(&progress, 0.0, &reason),
        };
        let lean = retry::lean(self.task.error.as_ref().map(|error| error.class));
        let assignment = Assignment { operation, objects, scratch: scratch.path().to_owned(), limit, lean };
        self.native.run(assignment, &self.over, &mut report).await.map_err(|failure| match failure {
            NativeFailure::Failed(info) => OperationError::Failed(info),
            NativeFailure::Cancelled => aborted(),
            NativeFailure::Deferred(reason) => self.wait_for(reason),
        })
    }

    /// Ends the attempt, which does not count: the task waits.
    fn wait_for(&self, reason: String) -> OperationError {
        if let Ok(mut deferred) = self.deferred.lock() {
            *deferred = Some(reason.clone());
        }
        OperationError::Aborted(reason)
    }

    fn blob_failed(&self, error: BlobError) -> OperationError {
        match error {
            // The attempt is stale: it has nothing to say to anybody.
            BlobError::Fenced => OperationError::Aborted(error.to_string()),
            other => OperationError::Failed(blob_error(&other)),
        }
    }

    /// Path of the request's source for a native process, and its object where it is no file.
    async fn source(&self, request: &Value) -> Result<(PathBuf, Objects), OperationError> {
        let source: BlobRef = part(request, "source")?;
        Ok(match self.platform.zones.open(&source).await.map_err(|error| self.blob_failed(error))? {
            Source::File(path) => (path, Objects::default()),
            Source::Object(object) => {
                (SOURCE_OBJECT.into(), Objects { source: Some(object), ..Objects::default() })
            }
        })
    }

    async fn stat(&self, request: &Value) -> Answer {
        let blob: BlobRef = part(request, "blob")?;
        Ok(facts(&self.platform.zones.stat(&blob).await.map_err(|error| self.blob_failed(error))?))
    }

    async fn list(&self, request: &Value) -> Answer {
        let (zone, container): (String, String) = (part(request, "zone")?, part(request, "container")?);
        let prefix: String = part(request, "prefix")?;
        let limit: usize = part(request, "limit")?;
        let found = self
            .platform
            .zones
            .list(&zone, &container, &prefix, limit)
            .await
            .map_err(|error| self.blob_failed(error))?;
        Ok(Value::Array(found.iter().map(facts).collect()))
    }

    async fn put_json(&self, request: &Value) -> Answer {
        let target: BlobRef = part(request, "target")?;
        self.write_json(&target, &request["document"]).await
    }

    async fn copy(&self, request: &Value) -> Answer {
        let (source, target): (BlobRef, BlobRef) = (part(request, "source")?, part(request, "target")?);
        self.still_held().await?;
        let copied = self.platform.zones.copy(&source, &target, Some(&self.fence())).await;
        Ok(facts(&copied.map_err(|error| self.blob_failed(error))?))
    }

    async fn publish_item(&self, request: &Value) -> Answer {
        let target: BlobRef = part(request, "target")?;
        let mut item = request["item"].clone();
        let missing: Vec<&&str> = ITEM_MEMBERS.iter().filter(|member| item.get(**member).is_none()).collect();
        if let Some(member) = missing.first() {
            return Err(failed(codes::STAC_INVALID, format!("the item has no member '{member}'")));
        }
        // Provenance is the host's to state, not the guest's.
        item["properties"]["processing:software"] = json!({
            "geoworker": env!("CARGO_PKG_VERSION"),
            "GDAL": geoworker_raster::gdal_version()
        });
        item["properties"]["geoworker:plugin_digest"] = json!(self.plugin_digest);
        item["properties"]["geoworker:contract"] = json!(CONTRACT);
        self.write_json(&target, &item).await
    }

    async fn write_json(&self, target: &BlobRef, document: &Value) -> Answer {
        self.still_held().await?;
        let text = serde_json::to_string_pretty(document).map_err(|error| invalid(&error))?;
        let written = self.platform.zones.write(target, &mut text.as_bytes(), Some(&self.fence())).await;
        Ok(facts(&written.map_err(|error| self.blob_failed(error))?))
    }
}

fn set(progress: &Progress, fraction: f64, message: &str) {
    if let Ok(mut latest) = progress.lock() {
        *latest = Some((fraction, message.to_owned()));
    }
}

fn aborted() -> OperationError {
    OperationError::Aborted("the attempt is over".into())
}

fn failed(code: &str, message: String) -> OperationError {
    OperationError::Failed(ErrorInfo::permanent(code, message))
}

fn invalid(error: &serde_json::Error) -> OperationError {
    failed(codes::PLUGIN_OUTPUT_INVALID, format!("the request cannot be read: {error}"))
}

fn part<T: DeserializeOwned>(request: &Value, key: &str) -> Result<T, OperationError> {
    serde_json::from_value(request[key].clone()).map_err(|error| invalid(&error))
}

fn whole<T: DeserializeOwned>(request: &Value) -> Result<T, OperationError> {
    serde_json::from_value(request.clone()).map_err(|error| invalid(&error))
}

fn facts(facts: &BlobFacts) -> Value {
    json!({
        "blob": facts.blob,
        "size_bytes": facts.size_bytes,
        "last_modified": facts.last_modified.to_rfc3339_opts(SecondsFormat::Secs, true),
        "etag": facts.etag
    })
}
