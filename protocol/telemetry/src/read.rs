//! Metrics of what is counted elsewhere: they are read when somebody asks, and cost nothing until then.

use std::fmt;

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

use crate::closed::Label;

type Reader<L> = Box<dyn Fn(L) -> u64 + Send + Sync>;

/// A counter or gauge without labels.
pub struct Read(MetricType, Reader<()>);

/// A counter for each value of a closed set.
pub struct ReadClosed<L>(Reader<L>);

/// A counter.
pub fn counter(read: impl Fn() -> u64 + Send + Sync + 'static) -> Read {
    Read(MetricType::Counter, Box::new(move |()| read()))
}

/// A gauge.
pub fn gauge(read: impl Fn() -> u64 + Send + Sync + 'static) -> Read {
    Read(MetricType::Gauge, Box::new(move |()| read()))
}

/// Counters of a closed set.
pub fn counters<L: Label>(read: impl Fn(L) -> u64 + Send + Sync + 'static) -> ReadClosed<L> {
    ReadClosed(Box::new(read))
}

impl EncodeMetric for Read {
    fn encode(&self, encoder: MetricEncoder<'_>) -> fmt::Result {
        let value = (self.1)(());
        match self.0 {
            MetricType::Counter => ConstCounter::new(value).encode(encoder),
            _ => ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(encoder),
        }
    }

    fn metric_type(&self) -> MetricType {
        self.0
    }
}

impl<L: Label> EncodeMetric for ReadClosed<L> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        L::all().into_iter().try_for_each(|label| {
            let pairs = label.pairs();
            ConstCounter::new((self.0)(label)).encode(encoder.encode_family(&pairs)?)
        })
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

impl fmt::Debug for Read {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Read").field(&self.0).finish_non_exhaustive()
    }
}

impl<L> fmt::Debug for ReadClosed<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReadClosed").finish_non_exhaustive()
    }
}
