//! The contract's imports, each ending at the invocation's [`HostServices`](crate::HostServices).

use geoworker_machine::ErrorInfo;
use serde_json::json;

use crate::bindings::{blobs, catalog, log, progress, raster, results, types};
use crate::error::Stop;
use crate::guest::{GuestState, clean_line};
use crate::lifted::Lifted;
use crate::services::OperationError;

type Answer<T> = wasmtime::Result<Result<T, types::Failure>>;

/// Bytes of a progress message.
const PROGRESS_BYTES: usize = 200;
/// Results that one page holds at most.
const PAGE_LIMIT: u32 = 1000;
/// Blobs that one listing holds at most.
const LIST_LIMIT: u32 = 10_000;
/// What a call without strings and lists hands over.
const NOTHING: serde_json::Value = serde_json::Value::Null;

impl types::Host for GuestState {}

impl log::Host for GuestState {
    async fn write(&mut self, level: String, message: String) -> wasmtime::Result<()> {
        self.enter(&message)?;
        self.log_line(&level, &message);
        Ok(())
    }
}

impl progress::Host for GuestState {
    async fn report(&mut self, fraction: f32, message: String) -> wasmtime::Result<()> {
        self.enter(&message)?;
        let fraction = if fraction.is_finite() { fraction.clamp(0.0, 1.0) } else { 0.0 };
        self.services.progress(fraction, &clean_line(&message, PROGRESS_BYTES));
        Ok(())
    }
}

impl raster::Host for GuestState {
    async fn inspect(
        &mut self,
        source: types::BlobRef,
        input_crs: Option<String>,
    ) -> Answer<raster::RasterInfo> {
        let allowed = self.check_zone(&source.zone, "read");
        self.checked(allowed, "raster.inspect", &json!({"source": source, "input_crs": input_crs})).await
    }

    async fn statistics(
        &mut self,
        source: types::BlobRef,
        max_pixels: u64,
    ) -> Answer<Vec<raster::BandStatistics>> {
        let allowed = self.check_zone(&source.zone, "read");
        self.checked(allowed, "raster.statistics", &json!({"source": source, "max_pixels": max_pixels})).await
    }

    async fn create_cog(&mut self, request: raster::CogRequest) -> Answer<raster::CogReport> {
        let allowed = self.check_zone(&request.source.zone, "read");
        let allowed = allowed.and_then(|()| self.check_zone(&request.target.zone, "write"));
        self.checked(allowed, "raster.create-cog", &request).await
    }

    async fn validate_cog(&mut self, source: types::BlobRef) -> Answer<raster::CogVerdict> {
        let allowed = self.check_zone(&source.zone, "read");
        self.checked(allowed, "raster.validate-cog", &json!({"source": source})).await
    }

    async fn preview(&mut self, request: raster::PreviewRequest) -> Answer<raster::PreviewReport> {
        let allowed = self.check_zone(&request.source.zone, "read");
        let allowed = allowed.and_then(|()| self.check_zone(&request.target.zone, "write"));
        self.checked(allowed, "raster.preview", &request).await
    }
}

impl blobs::Host for GuestState {
    async fn stat(&mut self, blob: types::BlobRef) -> Answer<types::BlobFacts> {
        let allowed = self.check_zone(&blob.zone, "read");
        self.checked(allowed, "blobs.stat", &json!({"blob": blob})).await
    }

    async fn list(
        &mut self,
        zone: String,
        container: String,
        prefix: String,
        limit: u32,
    ) -> Answer<Vec<types::BlobFacts>> {
        let allowed = self.check_zone(&zone, "read");
        let limit = limit.min(LIST_LIMIT);
        let request = json!({"zone": zone, "container": container, "prefix": prefix, "limit": limit});
        self.checked(allowed, "blobs.list", &request).await
    }

    async fn put_json(&mut self, target: types::BlobRef, document: String) -> Answer<types::BlobFacts> {
        let allowed = self.check_zone(&target.zone, "write");
        let allowed = allowed.and_then(|()| self.parse_json("document", &document));
        match allowed {
            Ok(document) => {
                self.checked(Ok(()), "blobs.put-json", &json!({"target": target, "document": document})).await
            }
            Err(info) => self.checked(Err(info), "blobs.put-json", &json!({"target": target})).await,
        }
    }

    async fn copy(&mut self, source: types::BlobRef, target: types::BlobRef) -> Answer<types::BlobFacts> {
        let allowed = self.check_zone(&source.zone, "read");
        let allowed = allowed.and_then(|()| self.check_zone(&target.zone, "write"));
        self.checked(allowed, "blobs.copy", &json!({"source": source, "target": target})).await
    }
}

impl catalog::Host for GuestState {
    async fn publish_item(&mut self, item: String, target: types::BlobRef) -> Answer<types::BlobFacts> {
        let allowed = self.check_zone(&target.zone, "write");
        match allowed.and_then(|()| self.parse_json("item", &item)) {
            Ok(item) => {
                self.checked(Ok(()), "catalog.publish-item", &json!({"target": target, "item": item})).await
            }
            Err(info) => self.checked(Err(info), "catalog.publish-item", &json!({"target": target})).await,
        }
    }
}

impl results::Host for GuestState {
    async fn count(&mut self, stage: u32) -> wasmtime::Result<u32> {
        self.enter(&NOTHING)?;
        self.services.result_count(stage).await.map_err(stop)
    }

    async fn page(
        &mut self,
        stage: u32,
        offset: u32,
        limit: u32,
    ) -> wasmtime::Result<Vec<results::UnitResult>> {
        self.enter(&NOTHING)?;
        let page = self.services.result_page(stage, offset, limit.min(PAGE_LIMIT)).await.map_err(stop)?;
        let unit = |result: crate::services::UnitResult| results::UnitResult {
            unit: result.unit,
            state: result.state,
            output: result.output,
            failure: result.failure.map(failure),
        };
        Ok(page.into_iter().map(unit).collect())
    }
}

impl GuestState {
    async fn checked<A: serde::de::DeserializeOwned>(
        &mut self,
        allowed: Result<(), ErrorInfo>,
        operation: &str,
        request: &(impl serde::Serialize + Lifted),
    ) -> Answer<A> {
        if let Err(info) = allowed {
            self.enter(request)?;
            return Ok(Err(failure(info)));
        }
        Ok(self.durable(operation, request).await?.map_err(failure))
    }
}

fn failure(info: ErrorInfo) -> types::Failure {
    types::Failure {
        code: info.code,
        message: info.message,
        class: info.class.as_str().to_owned(),
        hint: info.hint,
    }
}

fn stop(error: OperationError) -> wasmtime::Error {
    let reason = match error {
        OperationError::Failed(info) => info.to_string(),
        OperationError::Aborted(reason) => reason,
    };
    Stop::Aborted(reason).into()
}
