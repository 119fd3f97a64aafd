//! What is written about the metrics is what the program exports: `docs/METRICS.md` and the Grafana dashboard.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tap_rs::runtime::exporter::families::{FAMILIES, Family, Kind};

const PAGE: &str = include_str!("../docs/METRICS.md");
const DASHBOARD: &str = include_str!("../configs/grafana-tap-rs.json");

/// A row as the page has it.
fn row(family: &Family) -> String {
    let kind = match family.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Info => "info",
    };
    let labels: Vec<_> = family.labels.iter().map(|label| format!("`{label}`")).collect();
    format!("| `{}` | {kind} | {} | {} |", family.name, labels.join(", "), family.help)
}

#[test]
fn the_page_has_every_metric_and_no_other() {
    let page: Vec<_> = PAGE.lines().filter(|line| line.starts_with("| `tap_rs_")).collect();
    let program: Vec<_> = FAMILIES.iter().map(row).collect();
    assert_eq!(page, program);
}

/// Every PromQL expression, the variables' queries among them.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(text) if ["expr", "query", "definition"].contains(&key.as_str()) => {
                        found.push(text.clone());
                    }
                    _ => expressions(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| expressions(item, found)),
        _ => {}
    }
}

/// The words of an expression, each with whether an opening brace or bracket follows.
fn words(expression: &str) -> Vec<&str> {
    expression
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
        .collect()
}

#[test]
fn the_dashboard_asks_only_for_what_is_exported() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let mut asked = Vec::new();
    expressions(&dashboard, &mut asked);
    assert!(asked.len() > 10, "{asked:?}");
    let known: BTreeMap<_, _> = FAMILIES.iter().map(|f| (f.name, f)).collect();
    let mut used = BTreeSet::new();
    for expression in &asked {
        let names: Vec<_> = words(expression).into_iter().filter(|w| w.starts_with("tap_rs_")).collect();
        for name in &names {
            let family = known.get(name).unwrap_or_else(|| panic!("{name} is not exported: {expression}"));
            used.insert(family.name);
            // What stands in the braces behind the name are labels of that family, or of the scrape.
            let behind = expression.split_once(name).unwrap().1;
            let selectors = behind.strip_prefix('{').and_then(|b| b.split_once('}')).map_or("", |s| s.0);
            for selector in selectors.split(',').filter(|s| !s.is_empty()) {
                let label = selector.split(['=', '!', '~']).next().unwrap().trim();
                let ours = family.labels.contains(&label) || ["job", "instance"].contains(&label);
                assert!(ours, "{name} has no label {label}: {expression}");
            }
        }
        let counters = names.iter().filter(|n| n.ends_with("_total")).count();
        let rates = words(expression).iter().filter(|w| ["rate", "increase"].contains(w)).count();
        assert_eq!(counters, rates, "a counter is shown by its rate: {expression}");
    }
    let shown = used.len();
    assert!(shown * 2 > FAMILIES.len(), "{shown} of {} metrics are shown", FAMILIES.len());
}

#[test]
fn what_a_panel_is_labelled_with_is_what_its_expression_keeps() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let labels: BTreeSet<&str> = FAMILIES.iter().flat_map(|f| f.labels).copied().collect();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let legend = target["legendFormat"].as_str().unwrap_or_default();
            for part in legend.split("{{").skip(1) {
                let label = part.split("}}").next().unwrap().trim();
                assert!(labels.contains(label) || label == "instance", "{legend}");
            }
        }
    }
}
