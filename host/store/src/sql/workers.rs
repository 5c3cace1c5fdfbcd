//! Who works here, and who leads.

use sqlx::Row as _;

use super::super::dialect::Connection;
use super::rows::{self, sql};
use crate::error::StoreError;
use crate::records::{Beat, Worker};

type Result<T> = std::result::Result<T, StoreError>;

/// Takes or keeps a named lease; false where somebody else holds it.
pub(super) async fn lead(db: &mut Connection, name: &str, holder: &str, hold_ms: i64) -> Result<bool> {
    let take = sql("INSERT INTO leases (name, holder, held_until) VALUES ($1, $2, {now} + $3)
         ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, held_until = excluded.held_until
             WHERE leases.holder = excluded.holder OR leases.held_until <= {now}");
    let taken = sqlx::query(take).bind(name).bind(holder).bind(hold_ms).execute(db).await?;
    Ok(taken.rows_affected() == 1)
}

pub(super) async fn beat(db: &mut Connection, beat: &Beat<'_>) -> Result<()> {
    let write = sql("INSERT INTO workers (worker, app_name, mode, slots, busy, started_at, seen_at)
         VALUES ($1, $2, $3, $4, $5, {now}, {now})
         ON CONFLICT (worker) DO UPDATE SET busy = excluded.busy, seen_at = excluded.seen_at");
    sqlx::query(write)
        .bind(beat.worker)
        .bind(beat.app_name)
        .bind(beat.mode)
        .bind(i64::from(beat.slots))
        .bind(i64::from(beat.busy))
        .execute(db)
        .await?;
    Ok(())
}

/// Forgets a worker that ended in order.
pub(super) async fn leave(db: &mut Connection, worker: &str) -> Result<()> {
    sqlx::query("DELETE FROM leases WHERE holder = $1").bind(worker).execute(&mut *db).await?;
    sqlx::query("DELETE FROM workers WHERE worker = $1").bind(worker).execute(db).await?;
    Ok(())
}

pub(super) async fn list(db: &mut Connection) -> Result<Vec<Worker>> {
    let select = sql("SELECT w.*, {now} - w.seen_at AS silent,
             (SELECT count(*) FROM tasks WHERE tasks.worker = w.worker AND state = 'processing') AS tasks
         FROM workers w ORDER BY w.seen_at DESC, w.worker");
    let found = sqlx::query(select).fetch_all(db).await?;
    found
        .iter()
        .map(|row| {
            Ok(Worker {
                worker: row.try_get("worker")?,
                app_name: row.try_get("app_name")?,
                mode: row.try_get("mode")?,
                slots: rows::number(row, "slots")?,
                busy: rows::number(row, "busy")?,
                tasks: rows::number(row, "tasks")?,
                started_at: row.try_get("started_at")?,
                seen_at: row.try_get("seen_at")?,
                silent_ms: row.try_get("silent")?,
            })
        })
        .collect()
}
