//! Random interleavings of completions, failures, retries, lost workers and duplicates, played against the
//! transition table and the stage rules alone: a stage never advances twice, a final state is never left, and
//! the last task always turns out the lights.

use geoworker_machine::stage::{FailurePolicy, NextStep, StageSpec, next_step};
use geoworker_machine::state::TaskEvent;
use geoworker_machine::{JobState, TaskState};
use proptest::prelude::*;

/// One job as the rules see it.
struct Model {
    stages: Vec<StageSpec>,
    sizes: Vec<usize>,
    state: JobState,
    stage: u32,
    tasks: Vec<TaskState>,
    remaining: usize,
    failed: u32,
    failed_before: u32,
    /// `stage_complete` messages that were sent, for any stage.
    signals: Vec<u32>,
    advances: Vec<u32>,
}

impl Model {
    fn new(sizes: &[usize], policies: &[FailurePolicy]) -> Self {
        let spec = |policy: &FailurePolicy| StageSpec { name: "s".into(), on_failure: *policy };
        Self {
            stages: policies.iter().map(spec).collect(),
            sizes: sizes.to_vec(),
            state: JobState::Queued,
            stage: 0,
            tasks: Vec::new(),
            remaining: 0,
            failed: 0,
            failed_before: 0,
            signals: Vec::new(),
            advances: Vec::new(),
        }
    }

    fn become_state(&mut self, to: JobState) {
        assert!(self.state.may_become(to), "{} -> {to}", self.state);
        self.state = to;
    }

    /// A job or `stage_complete` message: the compare-and-set on (job, stage).
    fn advance(&mut self, finished: u32) {
        let current = self.stage == finished && self.remaining == 0;
        if self.state.is_final() || !current {
            return;
        }
        let step = if finished == 0 {
            NextStep::Plan(1)
        } else {
            next_step(&self.stages, finished, self.failed, self.failed_before)
        };
        match step {
            NextStep::Plan(stage) => self.plan(stage),
            NextStep::Finalize(end) => self.become_state(end),
            NextStep::Fail => self.become_state(JobState::Failed),
        }
        self.advances.push(finished);
    }

    fn plan(&mut self, stage: u32) {
        self.become_state(JobState::Processing);
        self.stage = stage;
        self.failed_before += self.failed;
        self.failed = 0;
        self.remaining = self.sizes[stage as usize - 1];
        self.tasks = vec![TaskState::Pending; self.remaining];
        if self.remaining == 0 {
            self.signals.push(stage);
        }
    }

    fn event(&mut self, index: usize, event: TaskEvent) {
        if self.tasks.is_empty() {
            return;
        }
        let index = index % self.tasks.len();
        let before = self.tasks[index];
        let Some(after) = before.after(event) else { return };
        assert!(!before.is_final(), "{before} was left");
        self.tasks[index] = after;
        if after.is_final() {
            self.remaining -= 1;
            self.failed += u32::from(after == TaskState::Failed);
            if self.remaining == 0 {
                self.signals.push(self.stage);
            }
        }
    }

    /// Everything that is still open is driven to its end, as workers and sweeper do.
    fn drive_to_the_end(&mut self) {
        for _ in 0..1000 {
            if self.state.is_final() {
                return;
            }
            self.advance(self.stage);
            for index in 0..self.tasks.len() {
                self.event(index, TaskEvent::Claim);
                self.event(index, TaskEvent::Complete);
            }
        }
    }
}

fn policy() -> impl Strategy<Value = FailurePolicy> {
    prop_oneof![Just(FailurePolicy::Fail), Just(FailurePolicy::Continue)]
}

#[derive(Debug, Clone)]
enum Step {
    Task(usize, usize),
    Signal(usize),
    StrayAdvance(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0_usize..6, 0..TaskEvent::ALL.len()).prop_map(|(task, event)| Step::Task(task, event)),
        2 => (0_usize..8).prop_map(Step::Signal),
        1 => (0_u32..5).prop_map(Step::StrayAdvance),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn jobs_end_once_and_stages_advance_once(
        shape in prop::collection::vec((0_usize..6, policy()), 1..4),
        steps in prop::collection::vec(step(), 0..120),
    ) {
        let (sizes, policies): (Vec<usize>, Vec<FailurePolicy>) = shape.into_iter().unzip();
        let mut model = Model::new(&sizes, &policies);
        model.advance(0);
        let mut ended = None;
        for step in steps {
            match step {
                Step::Task(task, event) => model.event(task, TaskEvent::ALL[event]),
                // A signal is delivered any number of times, in any order.
                Step::Signal(n) if !model.signals.is_empty() => model.advance(model.signals[n % model.signals.len()]),
                Step::Signal(_) => {}
                Step::StrayAdvance(stage) => model.advance(stage),
            }
            if let Some(end) = ended {
                prop_assert_eq!(model.state, end, "a final state was left");
            }
            ended = model.state.is_final().then_some(model.state);
        }
        model.drive_to_the_end();
        prop_assert!(model.state.is_final(), "the job never ended");
        let mut once = model.advances.clone();
        once.dedup();
        prop_assert_eq!(&once, &model.advances, "a stage advanced twice");
        let mut signals = model.signals.clone();
        signals.dedup();
        prop_assert_eq!(&signals, &model.signals, "the lights were turned out twice");
    }
}
