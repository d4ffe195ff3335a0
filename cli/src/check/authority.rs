//! Authorities, as the webhook configuration (PEM) and sidecars' command lines (base64 of DER) carry them.

use k8s_openapi::api::core::v1::Pod;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::finding::{Finding, Topic};

/// The option of the sidecar's command that is followed by its authorities.
const OPTION: &str = "--ca";
const DAY: i64 = 24 * 3600;
/// So many days before its end, an authority is worth a warning.
const SOON: i64 = 60;

/// The certificates of a PEM.
#[must_use]
pub fn of_pem(pem: &[u8]) -> Option<Vec<Vec<u8>>> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = certificates.ok()?;
    (!certificates.is_empty()).then(|| certificates.into_iter().map(|der| der.to_vec()).collect())
}

/// The certificates that a pod's sidecars trust; empty where it has none.
#[must_use]
pub fn of_pod(pod: &Pod) -> Vec<Vec<u8>> {
    let containers = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    let commands = containers.filter_map(|container| container.command.as_deref());
    let lists = commands.filter_map(|command| {
        let at = command.iter().position(|word| word == OPTION)?;
        command.get(at + 1)
    });
    lists.flat_map(|list| list.split(',')).filter_map(decode).collect()
}

fn decode(base64: &str) -> Option<Vec<u8>> {
    // A PEM is base64 in lines: rustls has the decoder.
    let pem = format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n");
    CertificateDer::from_pem_slice(pem.as_bytes()).ok().map(|der| der.to_vec())
}

/// Whether who trusts these authorities accepts what the `present` ones issue: it is one of them, or was signed by one,
/// or by one whom they signed, as the certificates of the configuration's bundle show (RFC 5280 §3.2).
#[must_use]
pub fn knows(trusted: &[Vec<u8>], present: &[Vec<u8>], bundle: &[Vec<u8>]) -> bool {
    if trusted.iter().any(|one| present.contains(one)) {
        return true;
    }
    let (mut known, mut others, present) = (parsed(trusted), parsed(bundle), parsed(present));
    // Each round finds whom those that are known vouch for.
    loop {
        let (found, rest): (Vec<_>, Vec<_>) =
            others.into_iter().partition(|one| known.iter().any(|by| vouches(by, one)));
        if found.is_empty() {
            return known.iter().any(|one| present.iter().any(|it| it.public_key() == one.public_key()));
        }
        known.extend(found);
        others = rest;
    }
}

fn parsed(all: &[Vec<u8>]) -> Vec<X509Certificate<'_>> {
    all.iter().filter_map(|der| X509Certificate::from_der(der).ok()).map(|(_, parsed)| parsed).collect()
}

fn vouches(by: &X509Certificate<'_>, for_whom: &X509Certificate<'_>) -> bool {
    for_whom.issuer() == by.subject() && for_whom.verify_signature(Some(by.public_key())).is_ok()
}

/// How long the authorities of a configuration still live. `now`: seconds since 1970.
#[must_use]
pub fn lifetime(place: &str, authorities: &[Vec<u8>], now: i64) -> Finding {
    let ends = authorities.iter().map(|der| {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let validity = certificate.validity();
        Some((validity.not_before.timestamp(), validity.not_after.timestamp()))
    });
    let Some(ends) = ends.collect::<Option<Vec<_>>>() else {
        return Topic::Webhook.error(place, "its caBundle holds something that is no certificate");
    };
    // Several are there while one replaces another: the last one counts.
    let Some((begin, end)) = ends.into_iter().max_by_key(|(_, end)| *end) else {
        return Topic::Webhook.error(place, "its caBundle holds no certificate");
    };
    let days = (end - now).div_euclid(DAY);
    if now < begin {
        Topic::Webhook.error(place, "its authority isn't valid yet: a clock is wrong")
    } else if now > end {
        Topic::Webhook.error(place, format!("its authority has expired {} days ago", -days))
    } else if days < SOON {
        Topic::Webhook.warning(place, format!("its authority expires in {days} days"))
    } else {
        Topic::Webhook.ok(place, format!("its authority is valid for {days} days"))
    }
}

#[cfg(test)]
mod tests {
    use mirrord_certs::Authority;
    use serde_json::json;

    use super::*;
    use crate::check::finding::Severity;

    const NOW: u64 = 1_800_000_000;

    #[test]
    fn a_sidecars_command_line_and_a_bundle_are_compared_by_their_certificates() {
        let authority = Authority::create(NOW).unwrap();
        let bundle = of_pem(authority.certificate_pem().as_bytes()).unwrap();
        assert_eq!(bundle, [authority.certificate().to_vec()]);
        let pem = authority.certificate_pem();
        let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let pod = json!({ "spec": { "containers": [], "initContainers": [
            { "name": "mirrord-copy", "command": ["/mirrord-agent", "copy", "/x"] },
            { "name": "mirrord", "command": ["/a", "serve", "--ca", base64, "--namespace-shared"] },
        ]}});
        assert_eq!(of_pod(&serde_json::from_value(pod).unwrap()), bundle);
        assert_eq!(of_pem(b"nonsense"), None);
    }

    #[test]
    fn an_authority_that_took_over_is_known_to_who_trusts_the_ones_before() {
        let first = Authority::create(NOW).unwrap();
        let third = first.succeed(NOW).unwrap().succeed(NOW).unwrap();
        let of = |authority: &Authority| vec![authority.certificate().to_vec()];
        let bundle = of_pem((third.trusted_pem() + &third.cross_pem()).as_bytes()).unwrap();
        assert!(knows(&of(&first), &of(&third), &bundle));
        assert!(knows(&of(&third), &of(&third), &[]), "without any bundle");
        let stranger = Authority::create(NOW).unwrap();
        assert!(!knows(&of(&stranger), &of(&third), &bundle));
        assert!(!knows(&of(&first), &of(&third), &of(&third)), "nobody vouches");
        assert!(!knows(&[], &of(&third), &bundle) && !knows(&[b"no".to_vec()], &of(&third), &bundle));
    }

    #[test]
    fn the_end_of_an_authority_is_told_before_it_comes() {
        let authority = Authority::create(NOW).unwrap();
        let bundle = [authority.certificate().to_vec()];
        let at = |days: i64| lifetime("x", &bundle, i64::try_from(NOW).unwrap() + days * DAY);
        assert_eq!(at(0).severity, Severity::Ok);
        assert_eq!(at(-2).severity, Severity::Error);
        let soon = at(5 * 365 - 10);
        assert!(soon.severity == Severity::Warning && soon.what.contains("expires in 10 days"), "{soon:?}");
        let late = at(5 * 365 + 3);
        assert!(late.severity == Severity::Error && late.what.contains("expired 3 days ago"), "{late:?}");
        assert_eq!(lifetime("x", &[b"no".to_vec()], 0).severity, Severity::Error);
    }
}
