//! The decision log: written in batches, read newest first, pruned from its oldest end.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sqlx::Row as _;

use geoworker_machine::TaskId;

use super::super::dialect::{Connection, Row};
use super::rows::{self, list, sql};
use crate::decisions::{Decision, DecisionKind, DecisionsPage, Document, NewDecision, Retention};
use crate::error::StoreError;

type Result<T> = std::result::Result<T, StoreError>;

/// Decisions with their documents.
const SELECT: &str = "SELECT d.*, i.document AS input, c.document AS context FROM decisions d
     LEFT JOIN decision_inputs i ON i.digest = d.input_digest
     LEFT JOIN decision_inputs c ON c.digest = d.context_digest";

pub(super) async fn record(db: &mut Connection, batch: &[NewDecision]) -> Result<()> {
    if batch.is_empty() {
        return Ok(());
    }
    // By digest: writers that insert the same documents in one order do not wait for each other in a circle.
    let documents: BTreeMap<&str, &str> = batch
        .iter()
        .flat_map(|decision| std::iter::once(&decision.input).chain(&decision.context))
        .filter_map(|document| Some((document.digest.as_str(), document.text.as_deref()?)))
        .collect();
    let documents: Vec<Value> =
        documents.iter().map(|(digest, text)| json!({"digest": digest, "document": text})).collect();
    let insert = sql("INSERT INTO decision_inputs (digest, document)
         SELECT value->>'digest', value->>'document' FROM {each:$1} WHERE true
         ON CONFLICT (digest) DO NOTHING");
    sqlx::query(insert).bind(list(&documents)?).execute(&mut *db).await?;
    let insert = sql("INSERT INTO decisions (at, kind, type_name, plugin_digest, contract, host_version, job_id, task_id,
             stage, attempt, input_digest, context_digest, output, output_digest, log, duration_ms)
         SELECT {now} - CAST(value->>'age' AS BIGINT), value->>'kind', value->>'type', value->>'plugin',
             value->>'contract', value->>'host', value->>'job', value->>'task',
             CAST(value->>'stage' AS BIGINT), CAST(value->>'attempt' AS BIGINT), value->>'input', value->>'context',
             value->>'output', value->>'output_digest', value->>'log',
             CAST(value->>'duration' AS DOUBLE PRECISION) FROM {each:$1}");
    let lines: Vec<Value> = batch.iter().map(line).collect();
    sqlx::query(insert).bind(list(&lines)?).execute(db).await?;
    Ok(())
}

fn line(decision: &NewDecision) -> Value {
    json!({
        "age": decision.age_ms,
        "kind": decision.kind.as_str(),
        "type": decision.type_name,
        "plugin": decision.plugin_digest,
        "contract": decision.contract,
        "host": decision.host_version,
        "job": decision.job_id,
        "task": decision.task_id,
        "stage": decision.stage,
        "attempt": decision.attempt,
        "input": decision.input.digest,
        "context": decision.context.as_ref().map(|document| &document.digest),
        "output": decision.output.text,
        "output_digest": decision.output.digest,
        "log": decision.log,
        "duration": decision.duration_ms
    })
}

pub(super) async fn page(db: &mut Connection, page: &DecisionsPage<'_>) -> Result<Vec<Decision>> {
    let select = sql(&format!(
        "{SELECT} WHERE d.at >= {{now}} - $1 AND ($2 = '' OR d.kind = $2) AND ($3 = '' OR d.type_name = $3)
             AND d.id < $4 ORDER BY d.id DESC LIMIT $5"
    ));
    let found = sqlx::query(select)
        // Since always: the clock counts from 1970 on, so that no time is older than twice as long.
        .bind(page.since_ms.unwrap_or(i64::MAX / 2))
        .bind(page.kind.map_or("", DecisionKind::as_str))
        .bind(page.type_name.unwrap_or_default())
        .bind(page.before.unwrap_or(i64::MAX))
        .bind(i64::from(page.limit))
        .fetch_all(db)
        .await?;
    found.iter().map(decision).collect()
}

pub(super) async fn latest_handle(db: &mut Connection, task: &TaskId) -> Result<Option<Decision>> {
    let select =
        sql(&format!("{SELECT} WHERE d.task_id = $1 AND d.kind = 'handle' ORDER BY d.id DESC LIMIT 1"));
    let found = sqlx::query(select).bind(task.as_str()).fetch_optional(db).await?;
    found.as_ref().map(decision).transpose()
}

/// Looks at the oldest rows only. A document that is asked for at the same moment by a new decision may be lost for it: that
/// decision cannot be replayed then, which costs less than a lock for every writer.
pub(super) async fn prune(db: &mut Connection, retention: Retention, limit: u32) -> Result<u64> {
    let delete = sql("DELETE FROM decisions WHERE id {among}
             SELECT id FROM (SELECT id, at FROM decisions ORDER BY id LIMIT $3) AS oldest
             WHERE at < {now} - $1 OR id <= (SELECT max(id) FROM decisions) - $2 {end}
         RETURNING input_digest, context_digest");
    let deleted = sqlx::query(delete)
        .bind(retention.keep_ms)
        .bind(retention.rows)
        .bind(i64::from(limit))
        .fetch_all(&mut *db)
        .await?;
    let mut digests = Vec::with_capacity(deleted.len());
    for row in &deleted {
        digests.push(json!({"digest": row.try_get::<String, _>("input_digest")?}));
        if let Some(digest) = row.try_get::<Option<String>, _>("context_digest")? {
            digests.push(json!({"digest": digest}));
        }
    }
    let unused =
        sql("DELETE FROM decision_inputs WHERE digest {among} SELECT value->>'digest' FROM {each:$1} {end}
             AND NOT EXISTS (SELECT 1 FROM decisions d WHERE d.input_digest = decision_inputs.digest)
             AND NOT EXISTS (SELECT 1 FROM decisions d WHERE d.context_digest = decision_inputs.digest)");
    sqlx::query(unused).bind(list(&digests)?).execute(db).await?;
    Ok(deleted.len() as u64)
}

pub(super) async fn documents(db: &mut Connection) -> Result<u64> {
    let row = sqlx::query("SELECT count(*) AS number FROM decision_inputs").fetch_one(db).await?;
    Ok(u64::try_from(row.try_get::<i64, _>("number")?).unwrap_or(0))
}

fn decision(row: &Row) -> Result<Decision> {
    let kind: String = row.try_get("kind")?;
    let ordinal = |column: &str| -> Result<Option<u32>> {
        match row.try_get::<Option<i64>, _>(column)? {
            Some(_) => rows::number(row, column).map(Some),
            None => Ok(None),
        }
    };
    let context = row.try_get::<Option<String>, _>("context_digest")?;
    Ok(Decision {
        id: row.try_get("id")?,
        at: row.try_get("at")?,
        kind: DecisionKind::from_name(&kind)
            .ok_or_else(|| StoreError::Corrupt(format!("unknown kind of decision '{kind}'")))?,
        type_name: row.try_get("type_name")?,
        plugin_digest: row.try_get("plugin_digest")?,
        contract: row.try_get("contract")?,
        host_version: row.try_get("host_version")?,
        job_id: row.try_get::<Option<String>, _>("job_id")?.map(rows::id).transpose()?,
        task_id: row.try_get::<Option<String>, _>("task_id")?.map(rows::task_id).transpose()?,
        stage: ordinal("stage")?,
        attempt: ordinal("attempt")?,
        input: Document { digest: row.try_get("input_digest")?, text: row.try_get("input")? },
        context: match context {
            Some(digest) => Some(Document { digest, text: row.try_get("context")? }),
            None => None,
        },
        output: Document { digest: row.try_get("output_digest")?, text: row.try_get("output")? },
        log: row.try_get("log")?,
        duration_ms: row.try_get("duration_ms")?,
    })
}
