//! State of one invocation: what it may use, what it has used, and the journal it is answered from.

use std::collections::VecDeque;

use geoworker_machine::json::depth;
use geoworker_machine::{ErrorInfo, codes};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use wasmtime::{ResourceLimiter, Store, UpdateDeadline};

use crate::engine::{PluginEngine, TICK};
use crate::error::Stop;
use crate::lifted::Lifted;
use crate::limits::{Limits, kib};
use crate::services::{HostServices, JournaledOperation, OperationError, request_hash};
use crate::usage::Usage;

/// Instances, memories and tables that one component may have; adapters and shims need a few each.
const MAX_PARTS: usize = 64;

/// What a guest has declared and may therefore ask for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Grants {
    pub(crate) operations: Vec<String>,
    pub(crate) zones: Vec<String>,
}

pub(crate) struct GuestState {
    pub(crate) limits: Limits,
    pub(crate) services: Box<dyn HostServices>,
    grants: Grants,
    journal: VecDeque<JournaledOperation>,
    sequence: u32,
    cpu_budget_ms: u64,
    cpu_ticks: u64,
    memory: u64,
    table_elements: u64,
    host_calls: u64,
    log_lines: u64,
    log_bytes: usize,
}

impl GuestState {
    pub(crate) fn new(
        limits: Limits,
        cpu_budget_ms: u64,
        services: Box<dyn HostServices>,
        grants: Grants,
        journal: Vec<JournaledOperation>,
    ) -> Self {
        Self {
            limits,
            services,
            grants,
            journal: journal.into(),
            sequence: 0,
            cpu_budget_ms,
            cpu_ticks: 0,
            memory: 0,
            table_elements: 0,
            host_calls: 0,
            log_lines: 0,
            log_bytes: 0,
        }
    }

    /// A fresh store in which all limits are armed, start functions included.
    pub(crate) fn into_store(self, engine: &PluginEngine) -> Store<GuestState> {
        let transfer = kib(self.limits.transfer_kib);
        let mut store = Store::new(engine.engine(), self);
        store.limiter(|state| state);
        store.set_hostcall_fuel(transfer);
        store.set_epoch_deadline(1);
        if engine.is_metered() {
            // Counted, not limited: time is what bounds a guest.
            let _ = store.set_fuel(u64::MAX);
        }
        // Each tick is charged when the guest runs through it. A tick that passes during a host operation is
        // charged once, not for the operation's length; yielding lets other tasks of the thread go on.
        store.epoch_deadline_callback(|mut context| {
            let state = context.data_mut();
            state.cpu_ticks += 1;
            if state.cpu_ms() > state.cpu_budget_ms {
                return Err(Stop::Cpu(state.cpu_budget_ms).into());
            }
            Ok(UpdateDeadline::Yield(1))
        });
        store
    }

    fn cpu_ms(&self) -> u64 {
        self.cpu_ticks * TICK.as_millis() as u64
    }

    /// What the invocation has used so far, but for instructions, which the store counts.
    pub(crate) fn usage(&self) -> Usage {
        Usage {
            cpu_ms: self.cpu_ms(),
            memory_bytes: self.memory,
            table_elements: self.table_elements,
            host_calls: self.host_calls,
            log_lines: self.log_lines,
            fuel: None,
        }
    }

    /// Counts a host call and checks what it hands over.
    pub(crate) fn enter(&mut self, sent: &impl Lifted) -> wasmtime::Result<()> {
        self.host_calls += 1;
        if self.host_calls > self.limits.host_calls {
            return Err(Stop::Calls(self.limits.host_calls).into());
        }
        Ok(sent.check(&self.limits)?)
    }

    pub(crate) fn log_line(&mut self, level: &str, message: &str) {
        self.log_lines += 1;
        if self.log_lines > self.limits.log_lines || self.log_bytes >= kib(self.limits.log_kib) {
            return;
        }
        let longest = usize::try_from(self.limits.log_line_bytes).unwrap_or(usize::MAX);
        let left = kib(self.limits.log_kib) - self.log_bytes;
        let clean = clean_line(message, longest.min(left));
        // An empty line costs something too, and a cut one has used up what was left.
        self.log_bytes += if clean.len() + 10 > left { left } else { clean.len() + 1 };
        let level = if matches!(level, "debug" | "warn" | "error") { level } else { "info" };
        self.services.log(level, &clean);
        if self.log_lines == self.limits.log_lines || self.log_bytes >= kib(self.limits.log_kib) {
            self.services.log("warn", "the log budget of this call is used up; further lines are dropped");
        }
    }

    /// Parses a guest's document within the limits.
    pub(crate) fn parse_json(&self, what: &str, text: &str) -> Result<Value, ErrorInfo> {
        let invalid =
            |reason: String| ErrorInfo::permanent(codes::PLUGIN_OUTPUT_INVALID, format!("{what} {reason}"));
        if text.len() > kib(self.limits.json_kib) {
            return Err(invalid(format!("has more than {} KiB", self.limits.json_kib)));
        }
        let value: Value =
            serde_json::from_str(text).map_err(|error| invalid(format!("is not JSON: {error}")))?;
        if depth(&value) as u64 > self.limits.json_depth {
            return Err(invalid(format!("is nested deeper than {}", self.limits.json_depth)));
        }
        Ok(value)
    }

    /// Refuses zones that were not declared.
    pub(crate) fn check_zone(&self, zone: &str, access: &str) -> Result<(), ErrorInfo> {
        let wanted = format!("{zone}:{access}");
        if self.grants.zones.contains(&wanted) {
            return Ok(());
        }
        let message = format!("the task type did not declare '{}'", wanted.escape_debug());
        Err(ErrorInfo::permanent(codes::BLOB_ACCESS_DENIED, message))
    }

    /// Answers from the journal, or performs the operation and remembers its outcome.
    ///
    /// Transient failures are not remembered: the next attempt tries again.
    pub(crate) async fn durable<Q: Serialize + Lifted, A: DeserializeOwned>(
        &mut self,
        operation: &str,
        request: &Q,
    ) -> wasmtime::Result<Result<A, ErrorInfo>> {
        self.enter(request)?;
        if !self.grants.operations.iter().any(|declared| declared == operation) {
            let message = format!("the task type did not declare '{operation}'");
            return Ok(Err(ErrorInfo::permanent(codes::OPERATION_NOT_DECLARED, message)));
        }
        let request = serde_json::to_value(request)?;
        let hash = request_hash(operation, &request);
        let outcome = match self.replay(operation, &hash) {
            Some(outcome) => outcome,
            None => self.perform(operation, request, hash).await?,
        };
        self.sequence += 1;
        match outcome {
            Ok(value) => Ok(Ok(serde_json::from_value(value)?)),
            Err(info) => Ok(Err(info)),
        }
    }

    fn replay(&mut self, operation: &str, hash: &str) -> Option<Result<Value, ErrorInfo>> {
        let entry = self.journal.pop_front()?;
        let same =
            entry.sequence == self.sequence && entry.operation == operation && entry.request_hash == hash;
        let outcome = if same { read_outcome(&entry.outcome) } else { None };
        if outcome.is_none() {
            // The guest took another turn: what follows was recorded on another path.
            self.journal.clear();
        }
        outcome
    }

    async fn perform(
        &mut self,
        operation: &str,
        request: Value,
        request_hash: String,
    ) -> wasmtime::Result<Result<Value, ErrorInfo>> {
        let outcome = match self.services.perform(operation, request).await {
            Ok(value) => Ok(value),
            Err(OperationError::Failed(info)) => Err(info),
            Err(OperationError::Aborted(reason)) => return Err(Stop::Aborted(reason).into()),
        };
        let recorded = match &outcome {
            Ok(value) => json!({"ok": value}),
            Err(info) if info.class == geoworker_machine::RetryClass::Permanent => json!({"failed": info}),
            Err(_) => return Ok(outcome),
        };
        let entry = JournaledOperation {
            sequence: self.sequence,
            operation: operation.to_owned(),
            request_hash,
            outcome: recorded,
        };
        match self.services.record(entry).await {
            Ok(()) => Ok(outcome),
            Err(OperationError::Failed(info)) => Err(Stop::Aborted(info.to_string()).into()),
            Err(OperationError::Aborted(reason)) => Err(Stop::Aborted(reason).into()),
        }
    }
}

impl ResourceLimiter for GuestState {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        self.memory = self.memory.saturating_add((desired - current) as u64);
        if self.memory > self.limits.memory_mib << 20 {
            return Err(Stop::Memory(format!("{} MiB of memory", self.limits.memory_mib)).into());
        }
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        if desired as u64 > self.limits.table_elements {
            return Err(Stop::Memory(format!("{} table elements", self.limits.table_elements)).into());
        }
        self.table_elements = self.table_elements.max(desired as u64);
        Ok(true)
    }

    fn instances(&self) -> usize {
        MAX_PARTS
    }

    fn tables(&self) -> usize {
        MAX_PARTS
    }

    fn memories(&self) -> usize {
        MAX_PARTS
    }
}

fn read_outcome(outcome: &Value) -> Option<Result<Value, ErrorInfo>> {
    if let Some(value) = outcome.get("ok") {
        return Some(Ok(value.clone()));
    }
    serde_json::from_value(outcome.get("failed")?.clone()).ok().map(Err)
}

/// One line without control characters, at most `limit` bytes.
pub(crate) fn clean_line(text: &str, limit: usize) -> String {
    let mut line = String::new();
    for character in text.chars() {
        let escaped = character.is_control();
        let length = if escaped { character.escape_default().count() } else { character.len_utf8() };
        if line.len() + length > limit {
            break;
        }
        if escaped { line.extend(character.escape_default()) } else { line.push(character) }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_and_cleaned() {
        assert_eq!(clean_line("a\nb\u{1b}[31mé", 100), "a\\nb\\u{1b}[31mé");
        assert_eq!(clean_line("éé", 3), "é");
    }
}
