//! Figures of a benchmark run: a table for people, JSON for machines.

use std::{fs, path::Path, time::Duration};

use serde_json::{Value, json};

/// What a figure is held against.
#[derive(Clone, Debug)]
pub enum Against {
    /// A bound that the design sets.
    Limit(f64),
    /// What the design asks for at least.
    AtLeast(f64),
    /// Something comparable, measured in the same run.
    Baseline(&'static str, f64),
    /// Nothing.
    Nothing,
}

/// The figures of one run.
#[derive(Debug, Default)]
pub struct Report {
    figures: Vec<(String, f64, String, Against)>,
}

impl Report {
    /// Adds a figure; its name ends with its unit.
    pub fn add(&mut self, name: &str, value: f64, unit: &str, against: Against) {
        println!("{}", Self::row(name, value, unit, &against));
        self.figures.push((name.to_owned(), value, unit.to_owned(), against));
    }

    /// Adds the figures of another program: objects with `name`, `value`, `unit`, and `limit` or `at_least`.
    pub fn extend(&mut self, rows: &[Value]) {
        for row in rows {
            let text = |field: &str| row[field].as_str().expect("a figure has a name and a unit");
            let number = |field: &str| row[field].as_f64();
            let against = number("limit").map(Against::Limit).or(number("at_least").map(Against::AtLeast));
            let value = number("value").unwrap_or(f64::NAN);
            self.add(text("name"), value, text("unit"), against.unwrap_or(Against::Nothing));
        }
    }

    fn row(name: &str, value: f64, unit: &str, against: &Against) -> String {
        let held = match against {
            Against::Limit(limit) => format!("limit {limit:.0}: {:.2} of it", value / limit),
            Against::AtLeast(least) => format!("at least {least:.0}: {:.2} times that", value / least),
            Against::Baseline(what, baseline) => {
                format!("{what} {baseline:.2}: {:.2} times that", value / baseline)
            }
            Against::Nothing => String::new(),
        };
        format!("{name:<42} {value:>12.2} {unit:<12} {held}")
    }

    /// Writes the figures as JSON.
    ///
    /// # Errors
    /// Where the file can't be written.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let figures = self.figures.iter().map(|(name, value, unit, against)| {
            let mut figure = json!({"name": name, "value": value, "unit": unit});
            match against {
                Against::Limit(limit) => {
                    figure["limit"] = json!(limit);
                    figure["ratio"] = json!(value / limit);
                }
                Against::AtLeast(least) => {
                    figure["at_least"] = json!(least);
                    figure["ratio"] = json!(value / least);
                }
                Against::Baseline(what, baseline) => {
                    figure["baseline"] = json!({"name": what, "value": baseline, "unit": unit});
                    figure["ratio"] = json!(value / baseline);
                }
                Against::Nothing => {}
            }
            figure
        });
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(path, format!("{:#}\n", Value::Array(figures.collect())))
    }
}

/// The middle one.
#[must_use]
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// In milliseconds.
#[must_use]
pub fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
