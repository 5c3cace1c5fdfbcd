//! The byte stream below AMQP. TLS is made here and not by the AMQP library, whose own TLS brings a second
//! cryptography library.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};

/// Connects without encryption.
pub(crate) async fn plain(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    // Requests are small and waited for.
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Connects with TLS from the first byte on.
pub(crate) async fn tls(
    host: &str,
    port: u16,
    extra_roots: Option<&Path>,
) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let connector = TlsConnector::from(Arc::new(config(extra_roots)?));
    connector.connect(name, plain(host, port).await?).await
}

fn config(extra_roots: Option<&Path>) -> io::Result<ClientConfig> {
    let mut roots = Vec::new();
    if let Some(file) = extra_roots {
        for certificate in CertificateDer::pem_file_iter(file).map_err(io::Error::other)? {
            roots.push(certificate.map_err(io::Error::other)?.to_vec());
        }
    }
    geoworker_identity::tls(roots).map_err(io::Error::other)
}
