//! Settings of plugins: `GEOWORKER_PLUGIN_WATCH`, `…_PLUGINS_LOCKED`, `…_PLUGIN_KEYS`, `…_PLUGIN_CACHE`,
//! `…_PLUGIN_CACHE_MB`, `…_PLUGIN_COMPILE`.

use std::path::{Path, PathBuf};

use geoworker_plugins::{ArtefactCache, TrustPolicy, WatchMode, WatchSettings};
use serde_json::{Value, json};

use crate::config::Source;

const WATCH: &str = "GEOWORKER_PLUGIN_WATCH";
const LOCKED: &str = "GEOWORKER_PLUGINS_LOCKED";
const KEYS: &str = "GEOWORKER_PLUGIN_KEYS";
const CACHE: &str = "GEOWORKER_PLUGIN_CACHE";
const CACHE_MB: &str = "GEOWORKER_PLUGIN_CACHE_MB";
const COMPILE: &str = "GEOWORKER_PLUGIN_COMPILE";

/// How plugins are loaded and watched.
#[derive(Debug, Clone, Default)]
pub(crate) struct PluginSettings {
    pub(crate) watch: WatchSettings,
    pub(crate) trust: TrustPolicy,
    /// Without the data directory's own folder; see [`Self::cache_in`].
    cache: ArtefactCache,
}

impl PluginSettings {
    /// The artefact cache of a data directory.
    pub(crate) fn cache_in(&self, data_dir: &Path) -> ArtefactCache {
        ArtefactCache { own: Some(data_dir.join("cache")), ..self.cache.clone() }
    }
}

/// Reads them. What is wrong goes to `problems`.
pub(crate) fn read(source: &dyn Source, problems: &mut Vec<String>) -> PluginSettings {
    let mut settings = PluginSettings::default();
    let mut choose = |name: &str, values: &[&str]| {
        let text = source.get(name)?.trim().to_ascii_lowercase();
        let chosen = values.iter().position(|value| *value == text);
        if chosen.is_none() {
            problems.push(format!("{name} is '{text}', not one of {}", values.join(", ")));
        }
        chosen
    };
    let modes = [WatchMode::On, WatchMode::Poll, WatchMode::Off];
    if let Some(mode) = choose(WATCH, &["on", "poll", "off"]) {
        settings.watch.mode = modes[mode];
    }
    settings.trust.locked = choose(LOCKED, &["false", "true"]) == Some(1);
    settings.cache.compile = choose(COMPILE, &["on", "off"]) != Some(1);
    settings.trust.keys = source.get(KEYS).map(PathBuf::from);
    settings.cache.prepared = source.get(CACHE).map(PathBuf::from);
    if let Some(text) = source.get(CACHE_MB) {
        match text.trim().parse::<u64>() {
            Ok(megabytes) => settings.cache.limit_bytes = megabytes.saturating_mul(1 << 20),
            Err(_) => problems.push(format!("{CACHE_MB} is '{text}', not a whole number in range")),
        }
    }
    settings
}

/// For `config show`.
pub(crate) fn to_json(settings: &PluginSettings) -> Value {
    let PluginSettings { watch, trust, cache } = settings;
    json!({
        "watch": format!("{:?}", watch.mode).to_lowercase(),
        "locked": trust.locked,
        "keys": trust.keys,
        "prepared_cache": cache.prepared,
        "cache_mb": cache.limit_bytes >> 20,
        "compile": cache.compile
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn what_is_wrong_is_named_and_the_defaults_ask_for_nothing() {
        let mut problems = Vec::new();
        let settings = read(&HashMap::new(), &mut problems);
        assert_eq!((settings.watch.mode, settings.trust), (WatchMode::On, TrustPolicy::default()));
        assert!(settings.cache.compile && problems.is_empty());
        let wrong = [(WATCH, "yes"), (LOCKED, "1"), (COMPILE, "never"), (CACHE_MB, "1G")];
        read(&HashMap::from(wrong), &mut problems);
        assert_eq!(problems.len(), 4, "{problems:?}");
        let given = [(WATCH, "poll"), (LOCKED, "true"), (COMPILE, "off"), (CACHE_MB, "10"), (KEYS, "k")];
        let settings = read(&HashMap::from(given), &mut Vec::new());
        assert_eq!(settings.watch.mode, WatchMode::Poll);
        assert_eq!(settings.trust, TrustPolicy { locked: true, keys: Some("k".into()) });
        assert!(!settings.cache.compile && settings.cache.limit_bytes == 10 << 20);
    }
}
