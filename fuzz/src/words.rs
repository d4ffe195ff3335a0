//! Short texts that stand for something: in the configuration, in names, in pods.

use mirrord_protocol::{feature::Feature, route::RouteId};
use mirrord_session::{Target, TargetKind};
use mirrord_webhook::injection::quantity::Quantity;

use crate::bytes::Bytes;

/// The first byte says what the rest shall be.
pub fn words(data: &[u8]) {
    let mut rest = Bytes(data);
    let kind = rest.number();
    let Ok(text) = std::str::from_utf8(rest.0) else { return };
    match kind % 4 {
        0 => target(text),
        1 => route(text),
        2 => feature(text),
        _ => quantities(text),
    }
}

fn target(text: &str) {
    let Ok(target) = text.parse::<Target>() else { return };
    assert!(!target.name.is_empty() && target.container.as_deref() != Some(""));
    assert_eq!(target.to_string().parse(), Ok(target.clone()));
    assert!(text.ends_with(target.container.as_deref().unwrap_or(&target.name)));
    assert_eq!(TargetKind::from_word(target.kind.word()), Some(target.kind));
    assert_eq!(target.resource_name(), format!("{}.{}", target.kind.word(), target.name));
}

fn route(text: &str) {
    match text.parse::<RouteId>() {
        Ok(route) => assert_eq!(route.to_string(), text.to_ascii_lowercase()),
        Err(_) => assert!(text.len() != 16 || !text.bytes().all(|byte| byte.is_ascii_hexdigit())),
    }
}

fn feature(text: &str) {
    match text.parse::<Feature>() {
        Ok(feature) => assert_eq!(feature.verb(), text),
        Err(_) => assert!(Feature::ALL.iter().all(|feature| feature.verb() != text)),
    }
}

/// Quantities, a line each.
fn quantities(text: &str) {
    let quantities: Vec<Quantity> = text.lines().filter_map(|line| line.parse().ok()).collect();
    for &one in &quantities {
        match one.to_string().parse::<Quantity>() {
            Ok(shown) => {
                assert!(shown >= one, "{one} is rounded up");
                assert_eq!(shown.to_string().parse(), Ok(shown));
            }
            // Rounded up beyond the largest that there is. (Kubernetes itself cuts at 2⁶³.)
            Err(_) => assert!(one > Quantity::milli(u64::MAX), "{one} can't be read"),
        }
        for &other in &quantities {
            assert!(one.plus(other) >= one && one.minus(other) <= one);
            assert_eq!(one.plus(other), other.plus(one));
            assert!(one.divided_by(other) <= one);
            assert!(one >= other || one.minus(other) == Quantity::default());
            assert_eq!(one.times(Quantity::milli(1000)), one);
        }
    }
}
