//! Azurite, Microsoft's emulator, as a child of the test. `GEOWORKER_AZURITE` names its script `azurite-blob`; without it the
//! tests say that they were skipped.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::super::{Account, AzureZones};

const KEY: &str = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0";

/// A running emulator with accounts `bronze` and `silver`.
pub(super) struct Azurite {
    /// Such as `http://127.0.0.1:12345`.
    pub(super) address: String,
    _folder: tempfile::TempDir,
    _child: Child,
}

/// Its script. None after having said so.
pub(super) fn script() -> Option<PathBuf> {
    let script = std::env::var_os("GEOWORKER_AZURITE").map(PathBuf::from);
    if script.is_none() {
        eprintln!("SKIPPED: GEOWORKER_AZURITE does not name azurite-blob");
    }
    script
}

impl Azurite {
    pub(super) async fn start(arguments: &[&str]) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let mut child = Command::new(script()?)
            .args([
                "--blobPort",
                "0",
                "--skipApiVersionCheck",
                "--silent",
                "--disableTelemetry",
                "--location",
            ])
            .arg(folder.path())
            .args(arguments)
            .env("AZURITE_ACCOUNTS", format!("bronze:{KEY};silver:{KEY}"))
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("starts");
        let mut lines = BufReader::new(child.stdout.take().expect("is piped")).lines();
        while let Some(line) = lines.next_line().await.expect("reads") {
            if let Some((_, address)) = line.split_once("successfully listens on ") {
                // What it says later must not find a closed pipe.
                tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                return Some(Self { address: address.trim().to_owned(), _folder: folder, _child: child });
            }
        }
        panic!("the emulator ended");
    }

    /// Zones at an address, which may be a proxy's.
    pub(super) fn zones_at(&self, address: &str) -> AzureZones {
        let [bronze, silver] = ["bronze", "silver"].map(|account| format!("{address}/{account}"));
        zones_at([&bronze, &silver])
    }

    pub(super) async fn zones(&self) -> AzureZones {
        let zones = self.zones_at(&self.address);
        for zone in ["bronze", "silver"] {
            zones.create_container(zone, "cogs").await.expect("creates");
        }
        zones
    }
}

/// Zones whose accounts are at these addresses.
pub(super) fn zones_at([bronze, silver]: [&str; 2]) -> AzureZones {
    let account = |(name, address): (&str, &str)| {
        let text = format!("AccountName={name};AccountKey={KEY};BlobEndpoint={address}");
        (name.to_owned(), Account::from_connection_string(&text).expect("is valid"))
    };
    let accounts = BTreeMap::from([("bronze", bronze), ("silver", silver)].map(account));
    AzureZones::open(accounts).expect("opens")
}
