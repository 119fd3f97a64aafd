//! The exposition formats: Prometheus' text, version 0.0.4, and OpenMetrics 1.0.
//!
//! Both are lines of `name{label="value"} number` behind their family's HELP and TYPE. They differ in what a family is
//! called, in the type of constants, and in OpenMetrics' end. Our own rather than a library, because the numbers are in
//! the snapshot already: a registry would hold them a second time.

use std::fmt::{Display, Write};

use super::families::{FAMILIES, Family, Kind};
use crate::runtime::status::Snapshot;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// <https://prometheus.io/docs/instrumenting/exposition_formats/>
    Prometheus,
    /// <https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md>
    OpenMetrics,
}

impl Form {
    /// For the Content-Type header.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Every family that has something to say of `snapshot`.
pub fn render(snapshot: &Snapshot, form: Form) -> String {
    let mut out = String::new();
    for family in FAMILIES {
        let mut samples = Samples { out: &mut out, family, form, begun: false };
        (family.samples)(snapshot, &mut samples);
    }
    if form == Form::OpenMetrics {
        out.push_str("# EOF\n");
    }
    out
}

/// Takes the samples of one family.
pub struct Samples<'a> {
    out: &'a mut String,
    family: &'static Family,
    form: Form,
    begun: bool,
}

impl Samples<'_> {
    /// One sample. `values` are those of the family's labels, in their order.
    pub fn add(&mut self, values: &[&str], number: impl Display) {
        if !std::mem::replace(&mut self.begun, true) {
            self.begin();
        }
        self.out.push_str(self.family.name);
        let mut before = '{';
        for (label, value) in self.family.labels.iter().zip(values) {
            let _ = write!(self.out, "{before}{label}=\"{}\"", escaped(value));
            before = ',';
        }
        let end = if before == ',' { "}" } else { "" };
        let _ = writeln!(self.out, "{end} {number}");
    }

    /// One sample, where there is a number.
    pub fn add_known(&mut self, values: &[&str], number: Option<impl Display>) {
        if let Some(number) = number {
            self.add(values, number);
        }
    }

    fn begin(&mut self) {
        let Family { name, kind, help, .. } = self.family;
        let (name, kind) = match (self.form, kind) {
            (Form::Prometheus, Kind::Counter) => (*name, "counter"),
            (Form::Prometheus, Kind::Gauge | Kind::Info) | (Form::OpenMetrics, Kind::Gauge) => {
                (*name, "gauge")
            }
            (Form::OpenMetrics, Kind::Counter) => (name.trim_end_matches("_total"), "counter"),
            (Form::OpenMetrics, Kind::Info) => (name.trim_end_matches("_info"), "info"),
        };
        let _ = writeln!(self.out, "# HELP {name} {}", escaped(help));
        let _ = writeln!(self.out, "# TYPE {name} {kind}");
    }
}

/// Backslash, quote and newline, as both formats want them.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::status::model::{Nic, Peer};

    fn snapshot() -> Snapshot {
        let peer = |name: &str| Peer { name: name.into(), rtt_us: Some(1500), ..Peer::default() };
        let nic = Nic {
            name: "eth0".into(),
            peer: "a".into(),
            drops: [("storm".into(), 7)].into(),
            ..Nic::default()
        };
        Snapshot {
            role: "server".into(),
            peers: vec![peer("a"), peer("odd \"\\\nname")],
            nics: vec![nic],
            ..Snapshot::default()
        }
    }

    /// Every line is a comment of a known form or a sample of the family that was begun last.
    #[test]
    fn both_forms_are_lines_as_their_formats_want_them() {
        for form in [Form::Prometheus, Form::OpenMetrics] {
            let text = render(&snapshot(), form);
            let (mut family, mut seen) = (String::new(), std::collections::HashSet::new());
            for line in text.lines() {
                if let Some(rest) = line.strip_prefix("# HELP ") {
                    family = rest.split(' ').next().unwrap().to_owned();
                    assert!(seen.insert(format!("# {family}")), "{family} comes twice");
                } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                    assert!(rest.starts_with(&format!("{family} ")), "{line}");
                } else if line != "# EOF" {
                    assert!(line.starts_with(&family), "{line}");
                    let (series, number) = line.rsplit_once(' ').unwrap();
                    assert!(number.parse::<f64>().is_ok(), "{line}");
                    assert!(seen.insert(series.to_owned()), "{series} comes twice");
                }
            }
            assert_eq!(text.ends_with("# EOF\n"), form == Form::OpenMetrics);
        }
    }

    #[test]
    fn a_name_cannot_break_out_of_its_label() {
        let text = render(&snapshot(), Form::Prometheus);
        assert!(text.contains("tap_rs_peer_rtt_seconds{peer=\"odd \\\"\\\\\\nname\"} 0.0015\n"), "{text}");
        assert!(
            text.contains("tap_rs_nic_dropped_frames_total{peer=\"a\",nic=\"eth0\",reason=\"storm\"} 7\n")
        );
    }

    #[test]
    fn a_counter_is_named_by_each_form_as_it_wants() {
        let [old, new] = [Form::Prometheus, Form::OpenMetrics].map(|form| render(&snapshot(), form));
        assert!(old.contains("# TYPE tap_rs_wakeups_total counter\n"));
        assert!(new.contains("# TYPE tap_rs_wakeups counter\ntap_rs_wakeups_total 0\n"), "{new}");
        assert!(new.contains("# TYPE tap_rs_build info\n"));
    }
}
