//! Everything that a guest hands over is looked at here before the host uses it.

use serde_json::Value;

use crate::bindings::{job_types, raster, task_types, types};
use crate::error::Stop;
use crate::limits::{Limits, kib};

/// A value that left a guest.
pub(crate) trait Lifted {
    /// Refuses strings and lists that are longer than allowed.
    fn check(&self, limits: &Limits) -> Result<(), Stop>;
}

impl Lifted for String {
    fn check(&self, limits: &Limits) -> Result<(), Stop> {
        if self.len() > kib(limits.string_kib) {
            return Err(Stop::Output(format!("{} KiB in one string", limits.string_kib)));
        }
        Ok(())
    }
}

impl<T: Lifted> Lifted for Vec<T> {
    fn check(&self, limits: &Limits) -> Result<(), Stop> {
        if self.len() as u64 > limits.list_items {
            return Err(Stop::Output(format!("{} elements in one list", limits.list_items)));
        }
        self.iter().try_for_each(|item| item.check(limits))
    }
}

impl<T: Lifted> Lifted for Option<T> {
    fn check(&self, limits: &Limits) -> Result<(), Stop> {
        self.as_ref().map_or(Ok(()), |value| value.check(limits))
    }
}

impl<T: Lifted, E: Lifted> Lifted for Result<T, E> {
    fn check(&self, limits: &Limits) -> Result<(), Stop> {
        match self {
            Ok(value) => value.check(limits),
            Err(error) => error.check(limits),
        }
    }
}

/// Requests as the journal knows them; the texts of documents were checked before they became values.
impl Lifted for Value {
    fn check(&self, limits: &Limits) -> Result<(), Stop> {
        match self {
            Value::String(text) => text.check(limits),
            Value::Object(members) => members.values().try_for_each(|member| member.check(limits)),
            Value::Array(items) => items.iter().try_for_each(|item| item.check(limits)),
            _ => Ok(()),
        }
    }
}

/// Names the fields of a record that can be long.
macro_rules! lifted {
    ($($record:ty { $($field:ident),+ $(,)? })+) => {
        $(impl Lifted for $record {
            fn check(&self, limits: &Limits) -> Result<(), Stop> {
                $(self.$field.check(limits)?;)+
                Ok(())
            }
        })+
    };
}

lifted! {
    types::BlobRef { zone, container, name }
    types::Failure { code, message, class, hint }
    types::Finding { code, severity, path, message }
    task_types::TaskRoute { target, reason }
    task_types::TaskType {
        name, version, summary, class, parameters_schema, result_schema, operations, zones
    }
    job_types::TaskDefinition { task_type, unit, params }
    job_types::Stage { name, on_failure }
    job_types::JobType { name, version, summary, parameters_schema, stages, task_types }
    raster::CogRequest {
        source, target, compression, predictor, overview_resampling, resampling, input_crs, target_crs
    }
    raster::PreviewRequest { source, target }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const LIMITS: fn() -> Limits = || Limits { string_kib: 1, list_items: 2, ..Limits::default() };

    #[test]
    fn strings_and_lists_are_bounded_wherever_they_are() {
        let long = "x".repeat(1025);
        let blob = |name: &str| types::BlobRef { zone: "z".into(), container: "c".into(), name: name.into() };
        assert!("x".repeat(1024).check(&LIMITS()).is_ok());
        assert!(long.check(&LIMITS()).is_err());
        assert!(vec![blob("n"), blob("n")].check(&LIMITS()).is_ok());
        assert!(vec![blob("n"), blob(&long)].check(&LIMITS()).is_err());
        assert!(vec![blob("n"), blob("n"), blob("n")].check(&LIMITS()).is_err());
        assert!(Err::<String, _>(vec![long.clone()]).check(&LIMITS()).is_err());
        assert!(json!({"a": [{"b": long}]}).check(&LIMITS()).is_err());
    }
}
