//! `queues`: what the queues hold, and messages that were set aside (B9).

use geoworker_machine::ErrorInfo;
use geoworker_queue::{DeadLetter, Queue, QueueError};
use serde_json::json;

use crate::cli::QueuesCommand;
use crate::config::Config;
use crate::context::Context;
use crate::exit::{OK, Outcome};
use crate::output;

/// Messages that are put back at a time.
const BATCH: u32 = 100;

pub(crate) async fn run(config: &Config, command: &QueuesCommand, json: bool) -> Outcome {
    let context = Context::open_to_look(config).await?;
    let queue = &*context.platform.queue;
    let outcome = match command {
        QueuesCommand::List => list(config, queue, json).await,
        QueuesCommand::DeadLetters { queue: name, limit } => dead_letters(queue, name, *limit, json).await,
        QueuesCommand::Redrive { queue: name, limit } => redrive(queue, name, *limit, json).await,
    };
    context.close().await;
    outcome
}

fn failed(error: QueueError) -> ErrorInfo {
    error.info()
}

async fn list(config: &Config, queue: &dyn Queue, json: bool) -> Outcome {
    let names = &config.worker.router.queues;
    let mut found = Vec::new();
    for name in [&names.jobs, &names.raster, &names.vector, &names.long] {
        found.push((name, queue.depth(name).await.map_err(failed)?));
    }
    if json {
        let value = |(name, depth): &(&String, geoworker_queue::Depth)| json!({"queue": name, "active": depth.active, "locked": depth.locked, "scheduled": depth.scheduled, "dead": depth.dead});
        output::json(&found.iter().map(value).collect::<Vec<_>>());
        return Ok(OK);
    }
    let heading = ["QUEUE", "ACTIVE", "LOCKED", "SCHEDULED", "DEAD"].map(str::to_owned).to_vec();
    let row = |(name, depth): &(&String, geoworker_queue::Depth)| {
        let counts = [depth.active, depth.locked, depth.scheduled, depth.dead];
        std::iter::once((*name).clone()).chain(counts.map(|count| count.to_string())).collect()
    };
    output::table(&std::iter::once(heading).chain(found.iter().map(row)).collect::<Vec<_>>());
    Ok(OK)
}

async fn dead_letters(queue: &dyn Queue, name: &str, limit: u32, json: bool) -> Outcome {
    let letters = queue.dead_letters(name, limit).await.map_err(failed)?;
    if json {
        let value = |letter: &DeadLetter| json!({"sequence": letter.sequence, "reason": letter.reason, "detail": letter.detail, "body": letter.body});
        output::json(&letters.iter().map(value).collect::<Vec<_>>());
        return Ok(OK);
    }
    let heading = ["SEQUENCE", "REASON", "DETAIL", "BODY"].map(str::to_owned).to_vec();
    let row = |letter: &DeadLetter| {
        // Whoever sent it may have put anything into it.
        let shown = |text: &str| text.chars().take(60).flat_map(char::escape_debug).collect::<String>();
        vec![letter.sequence.to_string(), shown(&letter.reason), shown(&letter.detail), shown(&letter.body)]
    };
    output::table(&std::iter::once(heading).chain(letters.iter().map(row)).collect::<Vec<_>>());
    Ok(OK)
}

async fn redrive(queue: &dyn Queue, name: &str, limit: u32, json: bool) -> Outcome {
    let mut moved = 0;
    while moved < limit {
        let wanted = BATCH.min(limit - moved);
        let now = queue.redrive(name, wanted).await.map_err(failed)?;
        moved += now;
        if now < wanted {
            break;
        }
    }
    if json {
        output::json(&json!({"queue": name, "redriven": moved}));
    } else {
        output::line(&format!("{moved} messages are in {name} again"));
    }
    Ok(OK)
}
