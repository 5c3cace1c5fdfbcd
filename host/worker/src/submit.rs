//! Accepting a job: everything that can be refused is refused here, with nothing written.

use std::time::Instant;

use geoworker_blobs::{BlobError, BlobRef};
use geoworker_machine::routing::ROUTE_FLAG;
use geoworker_machine::{ErrorInfo, JobId, RetryClass, TaskId, codes};
use geoworker_plugins::{Finding, JobTypeInfo, LoadedPlugin, PluginError};
use geoworker_store::decisions::DecisionKind;
use geoworker_store::records::{Job, NewJob, Rerun, Submitted};
use serde_json::{Map, Value};

use crate::decisions::{About, Asked, verdict};
use crate::platform::Platform;

/// A job to submit.
#[derive(Debug, Clone)]
pub struct Submission {
    /// Its type.
    pub job_type: String,
    /// Its parameters; those of the platform begin with an underscore.
    pub parameters: Map<String, Value>,
    /// Make a new run even where one with the same parameters exists.
    pub force: bool,
    /// For tracing across systems.
    pub correlation_id: Option<String>,
}

impl Platform {
    /// Checks a job and accepts it, or returns the run with the same type and parameters (R12).
    ///
    /// # Errors
    /// `JOB_TYPE_UNKNOWN`, `TASK_TYPE_UNKNOWN`, `PARAM_INVALID`, the plugin's own findings, `BLOB_NOT_FOUND`,
    /// `FILE_EMPTY`, `FILE_TOO_LARGE`, or a failure of the store.
    pub async fn submit(&self, submission: Submission) -> Result<Submitted, ErrorInfo> {
        let registry = self.registry();
        let (plugin, info) = registry.job_type(&submission.job_type)?;
        for task_type in &info.task_types {
            registry.task_type(task_type)?;
        }
        let mut parameters = submission.parameters;
        let route_flag = take_route_flag(&mut parameters)?;
        if let Some(crs) = &self.settings.default_target_crs
            && info.parameters.properties().any(|name| name == "target_crs")
        {
            parameters.entry("target_crs").or_insert_with(|| Value::from(crs.as_str()));
        }
        let parameters = Value::Object(parameters);
        info.parameters.check(&parameters).map_err(|errors| {
            let hint = format!("`geoworker plugin inspect {}` prints the parameters", info.name);
            ErrorInfo::permanent(codes::PARAM_INVALID, errors.join("; ")).with_hint(hint)
        })?;
        let started = Instant::now();
        let validated = plugin.validate_job(&info.name, &parameters).await;
        let asked = Asked {
            kind: DecisionKind::Validate,
            plugin: &plugin,
            type_name: &info.name,
            input: &parameters,
            context: None,
            output: verdict(&validated),
            duration: started.elapsed(),
        };
        let accepting = async {
            let validated = validated.map_err(plugin_error)?;
            let normalised = validated.map_err(|findings| findings_error(&findings))?;
            let (force, correlation_id) = (submission.force, submission.correlation_id);
            self.accept(&plugin, &info, normalised, route_flag, force, correlation_id).await
        };
        let submitted = accepting.await;
        let job = submitted.as_ref().ok().map(|submitted| &submitted.job_id);
        self.decided(asked, About { job, ..About::default() });
        submitted
    }

    /// Checks the inputs and writes the job.
    async fn accept(
        &self,
        plugin: &LoadedPlugin,
        info: &JobTypeInfo,
        mut normalised: Value,
        route_flag: bool,
        force: bool,
        correlation_id: Option<String>,
    ) -> Result<Submitted, ErrorInfo> {
        let inputs = plugin.job_inputs(&info.name, &normalised).await.map_err(plugin_error)?;
        for blob in inputs {
            self.check_input(&BlobRef::new(blob.zone, blob.container, blob.name)).await?;
        }
        if route_flag && let Some(map) = normalised.as_object_mut() {
            map.insert(ROUTE_FLAG.to_owned(), Value::Bool(true));
        }
        let job = NewJob {
            job_type: info.name.clone(),
            parameters: normalised,
            stages: info.stages.clone(),
            plugin_digest: plugin.digest.clone(),
            correlation_id,
            jobs_queue: self.jobs_queue().to_owned(),
            force,
        };
        let submitted = self.store.submit(job).await.map_err(|error| error.info())?;
        self.outbox_written.notify_one();
        Ok(submitted)
    }

    /// Asks for a job's end. Its running tasks stop within seconds; outputs that are published stay.
    ///
    /// # Errors
    /// `JOB_OVER` where it has ended, or a failure of the store.
    pub async fn cancel(&self, job: &JobId) -> Result<(), ErrorInfo> {
        let asked = self.store.cancel_job(job, self.jobs_queue(), &self.settings.app_name).await;
        if !asked.map_err(|error| error.info())? {
            let message = format!("job {} is over; what is over stays as it is", job.short());
            return Err(ErrorInfo::permanent(codes::JOB_OVER, message));
        }
        self.outbox_written.notify_one();
        Ok(())
    }

    /// Asks for the end of one task, at once where nobody runs it. Its stage counts it as failed.
    ///
    /// # Errors
    /// `TASK_OVER` where it has ended, or a failure of the store.
    pub async fn cancel_task(&self, task: &TaskId) -> Result<(), ErrorInfo> {
        let asked = self.store.cancel_task(task, self.jobs_queue(), &self.settings.app_name).await;
        if !asked.map_err(|error| error.info())? {
            let message = format!("task {} is over; what is over stays as it is", task.short());
            return Err(ErrorInfo::permanent(codes::TASK_OVER, message));
        }
        self.outbox_written.notify_one();
        Ok(())
    }

    /// Makes a new, linked run of a job that is over, in which one failed task (or all of them) runs again and what
    /// succeeded is carried over.
    ///
    /// # Errors
    /// `JOB_RUNNING`, `TASK_NOT_FAILED`, or a failure of the store.
    pub async fn retry(&self, job: &Job, task: Option<&TaskId>) -> Result<Submitted, ErrorInfo> {
        if !job.state.is_final() {
            let message = format!("job {} has not ended yet", job.job_id.short());
            return Err(ErrorInfo::permanent(codes::JOB_RUNNING, message));
        }
        let asked = Rerun { job: job.job_id.clone(), task: task.cloned() };
        let made = self.store.rerun(self.again(job), asked).await.map_err(|error| error.info())?;
        self.outbox_written.notify_one();
        made.ok_or_else(|| {
            let what = task.map_or_else(
                || "no task".to_owned(),
                |task| format!("task {} did not fail and none", task.short()),
            );
            let message = format!("{what} of job {} failed in its last stage", job.job_id.short());
            ErrorInfo::permanent(codes::TASK_NOT_FAILED, message)
        })
    }

    /// Runs all of a job again, as a new run that is linked to it.
    ///
    /// # Errors
    /// A failure of the store.
    pub async fn rerun(&self, job: &Job) -> Result<Submitted, ErrorInfo> {
        let submitted = self.store.submit(self.again(job)).await.map_err(|error| error.info())?;
        self.outbox_written.notify_one();
        Ok(submitted)
    }

    /// The request of a run, to be made once more.
    fn again(&self, job: &Job) -> NewJob {
        NewJob {
            job_type: job.job_type.clone(),
            parameters: job.parameters.clone(),
            stages: job.stages.clone(),
            plugin_digest: job.plugin_digest.clone(),
            correlation_id: job.correlation_id.clone(),
            jobs_queue: self.jobs_queue().to_owned(),
            force: true,
        }
    }

    async fn check_input(&self, blob: &BlobRef) -> Result<(), ErrorInfo> {
        let facts = self.zones.stat(blob).await.map_err(|error| blob_error(&error))?;
        if facts.size_bytes == 0 {
            return Err(ErrorInfo::permanent(
                codes::FILE_EMPTY,
                format!("{blob} has no bytes; upload it again"),
            ));
        }
        let limit = self.settings.max_input_bytes;
        if facts.size_bytes > limit {
            let message = format!("{blob} has {} bytes; at most {limit} are accepted", facts.size_bytes);
            return Err(ErrorInfo::permanent(codes::FILE_TOO_LARGE, message));
        }
        Ok(())
    }
}

fn take_route_flag(parameters: &mut Map<String, Value>) -> Result<bool, ErrorInfo> {
    match parameters.remove(ROUTE_FLAG) {
        None => Ok(false),
        Some(Value::Bool(flag)) => Ok(flag),
        Some(_) => Err(ErrorInfo::permanent(codes::PARAM_INVALID, format!("{ROUTE_FLAG} is true or false"))),
    }
}

/// The first finding gives the code, all of them the message.
pub(crate) fn findings_error(findings: &[Finding]) -> ErrorInfo {
    let code = findings.first().map_or(codes::PARAM_INVALID, |finding| finding.code.as_str());
    let messages: Vec<&str> = findings.iter().map(|finding| finding.message.as_str()).collect();
    ErrorInfo::permanent(code, messages.join("; "))
}

pub(crate) fn plugin_error(error: PluginError) -> ErrorInfo {
    match error {
        PluginError::Failed(info) => info,
        PluginError::Stopped(reason) => ErrorInfo::transient(codes::WORKER_FAULT, reason),
    }
}

/// The public form of a blob failure.
#[must_use]
pub fn blob_error(error: &BlobError) -> ErrorInfo {
    let (code, class) = match error {
        BlobError::InvalidName(_) => (codes::BLOB_NAME_INVALID, RetryClass::Permanent),
        BlobError::UnknownZone(..) => (codes::BLOB_ZONE_UNKNOWN, RetryClass::Permanent),
        BlobError::NotFound(_) => (codes::BLOB_NOT_FOUND, RetryClass::Permanent),
        BlobError::Full => (codes::DISK_FULL, RetryClass::Transient),
        BlobError::Denied(_) => (codes::BLOB_STORAGE_DENIED, RetryClass::Transient),
        BlobError::Io(_) | BlobError::Busy | BlobError::Fenced | BlobError::Changed(_) => {
            (codes::BLOB_STORAGE, RetryClass::Transient)
        }
        BlobError::Unavailable(_) => (codes::BLOB_STORAGE_UNAVAILABLE, RetryClass::Transient),
    };
    ErrorInfo::new(code, class, error.to_string())
}
