//! Asks one process whether it is well, for container engines.

use anyhow::{Context as _, bail};

use crate::{cli::HealthcheckArgs, http};

/// Asks; `Ok` is "well".
///
/// # Errors
///
/// What is wrong with it.
pub(crate) async fn run(args: &HealthcheckArgs) -> anyhow::Result<()> {
    let address = daemon::net::loopback(args.admin);
    let path = if args.ready { "/readyz" } else { "/healthz" };
    let answer = http::get(address, path).await;
    let (status, body) = answer.with_context(|| format!("{address} does not answer"))?;
    if status != 200 {
        bail!("{path} answers {status}: {}", body.trim().replace('\n', "; "));
    }
    Ok(())
}
