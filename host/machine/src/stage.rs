//! How a stage ends and what that means for its job.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::state::JobState;

/// What a failed task means for the job (R10).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailurePolicy {
    /// The job fails once the stage is over.
    Fail,
    /// The job goes on and ends `completed_with_errors`.
    Continue,
}

impl FailurePolicy {
    /// Reads a name; unknown ones count as `fail`.
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        if name == "continue" { Self::Continue } else { Self::Fail }
    }
}

/// One stage of a job type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StageSpec {
    /// Name for people.
    pub name: String,
    /// What a failed task means.
    pub on_failure: FailurePolicy,
}

/// What follows a stage that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextStep {
    /// Plan stage `.0`.
    Plan(u32),
    /// Ask the plugin for the job's result, then end in this state.
    Finalize(JobState),
    /// End the job as failed.
    Fail,
}

/// Decides after stage `stage` (from 1) with `failed` failed tasks; `failed_before` counts those of earlier stages.
#[must_use]
pub fn next_step(stages: &[StageSpec], stage: u32, failed: u32, failed_before: u32) -> NextStep {
    let policy = stages.get(stage as usize - 1).map_or(FailurePolicy::Fail, |spec| spec.on_failure);
    if failed > 0 && policy == FailurePolicy::Fail {
        return NextStep::Fail;
    }
    if (stage as usize) < stages.len() {
        return NextStep::Plan(stage + 1);
    }
    let end = if failed + failed_before > 0 { JobState::CompletedWithErrors } else { JobState::Completed };
    NextStep::Finalize(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stages(policies: &[FailurePolicy]) -> Vec<StageSpec> {
        policies.iter().map(|p| StageSpec { name: "s".into(), on_failure: *p }).collect()
    }

    #[test]
    fn failures_follow_the_stage_policy() {
        let spec = stages(&[FailurePolicy::Continue, FailurePolicy::Fail]);
        assert_eq!(next_step(&spec, 1, 2, 0), NextStep::Plan(2));
        assert_eq!(next_step(&spec, 2, 0, 2), NextStep::Finalize(JobState::CompletedWithErrors));
        assert_eq!(next_step(&spec, 2, 1, 0), NextStep::Fail);
        assert_eq!(next_step(&spec, 2, 0, 0), NextStep::Finalize(JobState::Completed));
    }
}
