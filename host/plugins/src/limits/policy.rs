//! Which limits hold for which file: the operator's word, and within it the plugin's wish.

use std::collections::BTreeMap;
use std::path::Path;

use geoworker_machine::{ErrorInfo, codes};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::limits::Limits;

/// Some limits by their names. An unknown name does not parse.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, u64>")]
pub struct PartialLimits(BTreeMap<String, u64>);

impl TryFrom<BTreeMap<String, u64>> for PartialLimits {
    type Error = String;

    fn try_from(named: BTreeMap<String, u64>) -> Result<Self, Self::Error> {
        let known = by_name(&Limits::default());
        match named.keys().find(|name| !known.contains_key(*name)) {
            Some(name) => Err(format!("there is no limit '{}'", name.escape_debug())),
            None => Ok(Self(named)),
        }
    }
}

/// The operator's limits file: what every plugin gets, how far a plugin's own wishes go, and exceptions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LimitsPolicy {
    /// What every plugin gets.
    pub default: Limits,
    /// What a plugin may request at most; a limit that is not named here cannot be raised by a plugin.
    pub ceiling: PartialLimits,
    /// Limits of one file, by its name; they come before everything else.
    pub plugins: BTreeMap<String, PartialLimits>,
}

impl From<Limits> for LimitsPolicy {
    fn from(default: Limits) -> Self {
        Self { default, ..Self::default() }
    }
}

/// The file as it is written: defaults at the top, then the tables.
#[derive(Deserialize)]
struct Tables {
    #[serde(default)]
    ceiling: PartialLimits,
    #[serde(default)]
    plugins: BTreeMap<String, PartialLimits>,
    #[serde(flatten)]
    default: BTreeMap<String, u64>,
}

impl LimitsPolicy {
    /// Reads a limits file; what it does not name keeps its default.
    ///
    /// # Errors
    /// `CONFIG_INVALID` where the file cannot be read or names an unknown limit.
    pub fn read(path: &Path) -> Result<Self, ErrorInfo> {
        let invalid = |reason: String| {
            ErrorInfo::permanent(codes::CONFIG_INVALID, format!("the limits file is not valid: {reason}"))
        };
        let text = std::fs::read_to_string(path).map_err(|error| invalid(error.to_string()))?;
        let tables: Tables = toml::from_str(&text).map_err(|error| invalid(error.message().to_owned()))?;
        let named = PartialLimits::try_from(tables.default).map_err(invalid)?;
        let default = from_names(by_name(&Limits::default()).into_iter().chain(named.0));
        Ok(Self { default, ceiling: tables.ceiling, plugins: tables.plugins })
    }

    /// What holds for a file: its own table, else the default, raised to what the plugin requests as far as the
    /// ceiling goes.
    #[must_use]
    pub fn effective(&self, file_name: &str, requested: &PartialLimits) -> Limits {
        let own = self.plugins.get(file_name);
        from_names(by_name(&self.default).into_iter().map(|(name, default)| {
            let ceiling = self.ceiling.0.get(&name).copied().unwrap_or(default);
            let wished = requested.0.get(&name).copied().unwrap_or(default);
            let granted = default.max(wished).min(ceiling);
            let limit = own.and_then(|own| own.0.get(&name)).copied().unwrap_or(granted);
            (name, limit)
        }))
    }
}

fn by_name(limits: &Limits) -> BTreeMap<String, u64> {
    let members = serde_json::to_value(limits).unwrap_or_default();
    let members = members.as_object().into_iter().flatten();
    members.filter_map(|(name, limit)| Some((name.clone(), limit.as_u64()?))).collect()
}

/// Later values of a name replace earlier ones.
fn from_names(named: impl Iterator<Item = (String, u64)>) -> Limits {
    let members = named.map(|(name, limit)| (name, Value::from(limit))).collect();
    serde_json::from_value(Value::Object(members)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<LimitsPolicy, ErrorInfo> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("writes");
        LimitsPolicy::read(file.path())
    }

    fn partial(name: &str, limit: u64) -> PartialLimits {
        PartialLimits(BTreeMap::from([(name.to_owned(), limit)]))
    }

    #[test]
    fn a_file_overrides_what_it_names_and_nothing_else() {
        let policy = read("cpu_ms = 5\n").expect("is valid");
        assert_eq!(policy, LimitsPolicy::from(Limits { cpu_ms: 5, ..Limits::default() }));
    }

    #[test]
    fn unknown_names_are_refused_everywhere() {
        for text in ["cpu = 5", "[ceiling]\ncpu = 5", "[plugins.\"a.wasm\"]\ncpu = 5", "cpu_ms = -1"] {
            assert_eq!(read(text).expect_err("is refused").code, codes::CONFIG_INVALID, "{text}");
        }
    }

    #[test]
    fn a_wish_goes_as_far_as_the_ceiling_and_nowhere_without_one() {
        let silent = LimitsPolicy::default();
        assert_eq!(silent.effective("a.wasm", &partial("memory_mib", 512)), Limits::default());
        assert_eq!(silent.effective("a.wasm", &partial("memory_mib", 1)), Limits::default());
        let policy = read("[ceiling]\nmemory_mib = 256\n").expect("is valid");
        assert_eq!(policy.effective("a.wasm", &partial("memory_mib", 128)).memory_mib, 128);
        assert_eq!(policy.effective("a.wasm", &partial("memory_mib", 512)).memory_mib, 256);
        assert_eq!(policy.effective("a.wasm", &partial("cpu_ms", 9000)).cpu_ms, 2000);
    }

    #[test]
    fn a_ceiling_below_the_default_holds_for_all_and_a_files_own_table_comes_first() {
        let policy =
            read("[ceiling]\ncpu_ms = 100\n[plugins.\"a.wasm\"]\ncpu_ms = 5000\n").expect("is valid");
        assert_eq!(policy.effective("b.wasm", &PartialLimits::default()).cpu_ms, 100);
        assert_eq!(policy.effective("a.wasm", &PartialLimits::default()).cpu_ms, 5000);
        assert_eq!(policy.effective("a.wasm", &partial("cpu_ms", 1)).cpu_ms, 5000);
    }
}
