//! Questions to plugins whose answers are recorded.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use geoworker_machine::{JobId, TaskId};
use geoworker_plugins::{
    FileFacts, HostServices, JobContext, JournaledOperation, LoadedPlugin, PluginError, TaskContext,
    TaskDefinition, TaskRoute, TaskTypeInfo, Validation,
};
use geoworker_store::decisions::DecisionKind;
use geoworker_store::records::Task;
use serde_json::{Value, json};

use super::Asked;
use super::output::{answered, planned, verdict};
use super::transcript::{Recorded, Transcript};
use crate::platform::Platform;

type Answer<T> = Result<T, PluginError>;

/// What a question is about.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct About<'a> {
    pub(crate) job: Option<&'a JobId>,
    pub(crate) task: Option<&'a TaskId>,
    pub(crate) stage: Option<u32>,
    pub(crate) attempt: Option<u32>,
}

impl Platform {
    /// [`LoadedPlugin::validate_task`], recorded.
    pub(crate) async fn ask_validate(
        &self,
        plugin: &LoadedPlugin,
        type_name: &str,
        params: &Value,
        about: About<'_>,
    ) -> Answer<Validation> {
        let started = Instant::now();
        let answer = plugin.validate_task(type_name, params).await;
        let (kind, output, duration) = (DecisionKind::Validate, verdict(&answer), started.elapsed());
        self.decided(
            Asked { kind, plugin, type_name, input: params, context: None, output, duration },
            about,
        );
        answer
    }

    /// [`LoadedPlugin::route`], recorded with the facts that it was told.
    pub(crate) async fn ask_route(
        &self,
        plugin: &LoadedPlugin,
        type_name: &str,
        params: &Value,
        inputs: &[FileFacts],
        about: About<'_>,
    ) -> Answer<TaskRoute> {
        let started = Instant::now();
        let answer = plugin.route(type_name, params, inputs).await;
        let (kind, output, duration) = (DecisionKind::Route, answered(&answer), started.elapsed());
        let context = Some(json!(inputs));
        self.decided(Asked { kind, plugin, type_name, input: params, context, output, duration }, about);
        answer
    }

    /// [`LoadedPlugin::plan_stage`], recorded. The results that it looked at stay with the job.
    pub(crate) async fn ask_plan(
        &self,
        plugin: &LoadedPlugin,
        context: &JobContext,
        params: &Value,
        services: Box<dyn HostServices>,
        about: About<'_>,
    ) -> Answer<Vec<(TaskDefinition, Value)>> {
        let started = Instant::now();
        let answer = plugin.plan_stage(context, about.stage.unwrap_or_default(), services).await;
        let (kind, output, duration) = (DecisionKind::PlanStage, planned(&answer), started.elapsed());
        let type_name = &context.job_type;
        self.decided(
            Asked { kind, plugin, type_name, input: params, context: None, output, duration },
            about,
        );
        answer
    }

    /// [`LoadedPlugin::finalize`], recorded. The results that it looked at stay with the job.
    pub(crate) async fn ask_finalize(
        &self,
        plugin: &LoadedPlugin,
        context: &JobContext,
        params: &Value,
        services: Box<dyn HostServices>,
        about: About<'_>,
    ) -> Answer<Value> {
        let started = Instant::now();
        let answer = plugin.finalize(context, services).await;
        let (kind, output, duration) = (DecisionKind::Finalize, answered(&answer), started.elapsed());
        let type_name = &context.job_type;
        self.decided(
            Asked { kind, plugin, type_name, input: params, context: None, output, duration },
            about,
        );
        answer
    }

    /// [`LoadedPlugin::handle`], recorded with the operations that it asked for, their answers and the end of its log.
    pub(crate) async fn ask_handle(
        &self,
        plugin: &LoadedPlugin,
        info: &TaskTypeInfo,
        context: &TaskContext,
        task: &Task,
        services: Box<dyn HostServices>,
        journal: Vec<JournaledOperation>,
    ) -> Answer<Value> {
        let Some(recorder) = &self.decisions else {
            return plugin.handle(info, context, services, journal).await;
        };
        let transcript = Arc::new(Mutex::new(Transcript::of(&journal)));
        let services = Recorded { inner: services, transcript: Arc::clone(&transcript) };
        let started = Instant::now();
        let answer = plugin.handle(info, context, Box::new(services), journal).await;
        let duration = started.elapsed();
        let Ok(transcript) = transcript.lock() else { return answer };
        let mut output = answered(&answer);
        if let Some(output) = &mut output {
            output["operations"] = transcript.requests();
        }
        let asked = Asked {
            kind: DecisionKind::Handle,
            plugin,
            type_name: &info.name,
            input: &task.parameters,
            context: transcript.answers(),
            output,
            duration,
        };
        let about = About {
            job: Some(&task.job_id),
            task: Some(&task.task_id),
            stage: Some(task.stage),
            attempt: Some(task.attempt),
        };
        if let Some(mut decision) = asked.into_decision(about) {
            decision.log = transcript.log();
            recorder.record(decision);
        }
        answer
    }
}
