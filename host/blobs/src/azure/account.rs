//! Storage accounts and how they are named: by a connection string, or by name with an identity.

use std::fmt;
use std::sync::Arc;

use azure_core::http::Url;
use geoworker_identity::TokenSource;

use super::access::Access;

/// Where blobs live when nothing else is said.
const SUFFIX: &str = "core.windows.net";
/// The account that every storage emulator knows, with its key: they are no secret.
const DEVELOPMENT: &str = "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==;BlobEndpoint=http://127.0.0.1:10000/devstoreaccount1";

/// A storage account, and what is needed to use it.
#[derive(Clone)]
pub struct Account {
    pub(super) endpoint: Url,
    pub(super) access: Access,
}

/// A storage account that was not described well. Never says a key or a signature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// The connection string lacks something.
    #[error("the connection string has no {0}")]
    Missing(&'static str),
    /// The connection string says something that cannot be.
    #[error("{0} of the connection string is not valid: {1}")]
    Invalid(&'static str, &'static str),
    /// The account's name cannot be one.
    #[error("a storage account's name has 3 to 24 lower-case letters and digits")]
    Name,
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("host", &self.host()).field("access", &self.access).finish()
    }
}

impl Account {
    /// Of a connection string as the portal shows it: `AccountName`, `AccountKey` or `SharedAccessSignature`,
    /// `BlobEndpoint` or `EndpointSuffix` (default `core.windows.net`), `DefaultEndpointsProtocol` (default `https`); or
    /// `UseDevelopmentStorage=true`. Other parts are ignored.
    ///
    /// # Errors
    /// With what is missing or wrong.
    pub fn from_connection_string(text: &str) -> Result<Self, AccountError> {
        let part = |name: &str| {
            let parts = text.split(';').filter_map(|part| part.split_once('='));
            let mut named =
                parts.filter(|(key, value)| key.trim().eq_ignore_ascii_case(name) && !value.is_empty());
            named.next().map(|(_, value)| value.trim())
        };
        if part("UseDevelopmentStorage").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Self::from_connection_string(DEVELOPMENT);
        }
        let account = part("AccountName");
        let endpoint = match part("BlobEndpoint") {
            Some(endpoint) => endpoint.to_owned(),
            None => {
                let account = account.ok_or(AccountError::Missing("AccountName"))?;
                let protocol = part("DefaultEndpointsProtocol").unwrap_or("https");
                format!("{protocol}://{account}.blob.{}", part("EndpointSuffix").unwrap_or(SUFFIX))
            }
        };
        let access = if let Some(key) = part("AccountKey") {
            let account = account.ok_or(AccountError::Missing("AccountName"))?.to_owned();
            let key = azure_core::base64::decode(key);
            let key = key.map_err(|_| AccountError::Invalid("AccountKey", "it is not base64"))?;
            Access::Key { account, key }
        } else {
            let signature = part("SharedAccessSignature").map(|text| text.trim_start_matches('?').to_owned());
            Access::Signature(signature.ok_or(AccountError::Missing("AccountKey or SharedAccessSignature"))?)
        };
        Ok(Self { endpoint: endpoint_of(&endpoint)?, access })
    }

    /// The account `name` of the public cloud (`https://NAME.blob.core.windows.net`), used with an identity.
    ///
    /// # Errors
    /// [`AccountError::Name`].
    pub fn with_identity(name: &str, identity: Arc<dyn TokenSource>) -> Result<Self, AccountError> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        if !(3..=24).contains(&name.len()) || !name.chars().all(plain) {
            return Err(AccountError::Name);
        }
        let endpoint = endpoint_of(&format!("https://{name}.blob.{SUFFIX}"))?;
        Ok(Self { endpoint, access: Access::Identity(identity) })
    }

    /// The host that is talked to.
    #[must_use]
    pub fn host(&self) -> &str {
        self.endpoint.host_str().unwrap_or_default()
    }

    /// Takes another address, such as that of a sovereign cloud or of an emulator.
    ///
    /// # Errors
    /// When it is not an `http` or `https` address without a query.
    pub fn at(mut self, endpoint: &str) -> Result<Self, AccountError> {
        self.endpoint = endpoint_of(endpoint)?;
        Ok(self)
    }
}

fn endpoint_of(text: &str) -> Result<Url, AccountError> {
    let invalid = |why| AccountError::Invalid("BlobEndpoint", why);
    let url = Url::parse(text).map_err(|_| invalid("it is not an address"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(invalid("it is neither http nor https"));
    }
    if url.query().is_some() || !url.username().is_empty() || url.password().is_some() {
        return Err(invalid("it has a query or credentials"));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_strings_of_the_portal_and_the_emulator_are_understood() {
        let account = |text| Account::from_connection_string(text).expect("is valid");
        let portal = account(
            "DefaultEndpointsProtocol=https;AccountName=bronze;AccountKey=c2VjcmV0LWtleQ==;EndpointSuffix=core.usgovcloudapi.net",
        );
        assert_eq!(portal.endpoint.as_str(), "https://bronze.blob.core.usgovcloudapi.net/");
        assert!(
            matches!(&portal.access, Access::Key { account, key } if account == "bronze" && key == b"secret-key")
        );
        let sas =
            account("BlobEndpoint=https://x.example/;QueueEndpoint=q;SharedAccessSignature=?sv=1&sig=a%3D");
        assert!(matches!(&sas.access, Access::Signature(text) if text == "sv=1&sig=a%3D"));
        let development = account("UseDevelopmentStorage=true");
        assert_eq!(development.endpoint.as_str(), "http://127.0.0.1:10000/devstoreaccount1");
        for account in [portal, sas] {
            let text = format!("{account:?}");
            assert!(!text.contains("secret") && !text.contains("c2Vj") && !text.contains("sig"), "{text}");
        }
    }

    #[test]
    fn what_is_missing_is_named_and_nothing_secret_is_said() {
        let error = |text| Account::from_connection_string(text).expect_err("is refused");
        assert_eq!(error("AccountKey=aGk="), AccountError::Missing("AccountName"));
        assert_eq!(error("AccountName=a"), AccountError::Missing("AccountKey or SharedAccessSignature"));
        assert_eq!(error(""), AccountError::Missing("AccountName"));
        let wrong_key = error("AccountName=a;AccountKey=hush!").to_string();
        assert!(wrong_key.contains("AccountKey") && !wrong_key.contains("hush"), "{wrong_key}");
        let wrong = error("BlobEndpoint=ftp://hush/;SharedAccessSignature=hush").to_string();
        assert!(wrong.contains("BlobEndpoint") && !wrong.contains("hush"), "{wrong}");
        assert!(
            error("BlobEndpoint=https://x/?sig=hush;SharedAccessSignature=s").to_string().contains("query")
        );
    }
}
