//! `workers`: who works on this database.

use geoworker_store::records::Worker;

use crate::config::Config;
use crate::context::Context;
use crate::exit::{OK, Outcome};
use crate::output;

pub(crate) async fn run(config: &Config, json: bool) -> Outcome {
    let context = Context::open_to_look(config).await?;
    let workers = context.platform.store.workers().await.map_err(|error| error.info())?;
    context.close().await;
    if json {
        output::json(&workers);
        return Ok(OK);
    }
    let heading = ["WORKER", "MODE", "SLOTS", "RUNS", "HOLDS", "SINCE", "SEEN"].map(str::to_owned).to_vec();
    let row = |worker: &Worker| {
        vec![
            worker.worker.clone(),
            worker.mode.clone(),
            worker.slots.to_string(),
            worker.busy.to_string(),
            worker.tasks.to_string(),
            output::time(Some(worker.started_at)),
            format!("{} ago", output::span(worker.silent_ms)),
        ]
    };
    output::table(&std::iter::once(heading).chain(workers.iter().map(row)).collect::<Vec<_>>());
    Ok(OK)
}
