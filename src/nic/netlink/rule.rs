//! Rules that choose routing tables (`struct fib_rule_hdr`, `FRA_*`: linux/fib_rules.h).

use std::fmt;

use super::address::{family, octets, to_ip};
use super::message::{Message, attributes};
use super::route::{OURS, Prefix, short};
use super::{Netlink, Result};

const FRA_SRC: u16 = 2;
const FRA_PRIORITY: u16 = 6;
const FRA_TABLE: u16 = 15;
const FRA_PROTOCOL: u16 = 21;
const FR_ACT_TO_TBL: u8 = 1;

/// A rule: what comes from `from` is looked up in `table`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Source addresses.
    pub from: Prefix,
    /// The table's number.
    pub table: u32,
    /// Rules are asked in this order, smallest first; `None`: the kernel puts it before those that are there.
    pub priority: Option<u32>,
    /// Marked with [`OURS`] (Linux 4.17).
    pub ours: bool,
}

impl Netlink {
    /// Adds a rule. `EEXIST` where there is the same already.
    pub fn add_rule(&mut self, rule: &Rule) -> Result<()> {
        let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        self.change("add the rule", rule, rule.message(libc::RTM_NEWRULE, flags))
    }

    /// Removes a rule.
    pub fn delete_rule(&mut self, rule: &Rule) -> Result<()> {
        self.change("remove the rule", rule, rule.message(libc::RTM_DELRULE, 0))
    }

    /// The rules of both families that choose a table, by source addresses or none; what else they go by is left out.
    pub fn rules(&mut self) -> Result<Vec<Rule>> {
        let message = Message::new(libc::RTM_GETRULE, libc::NLM_F_DUMP, &[0; 12]);
        self.query(("list", "the rules"), message, libc::RTM_NEWRULE, Rule::parse)
    }
}

impl Rule {
    /// `struct fib_rule_hdr`: family, destination and source lengths, TOS, table, two reserved bytes, action, flags.
    fn message(&self, kind: u16, flags: i32) -> Message {
        let head =
            [family(self.from.ip), 0, self.from.len, 0, short(self.table), 0, 0, FR_ACT_TO_TBL, 0, 0, 0, 0];
        let source = (self.from.len > 0).then(|| octets(self.from.ip));
        Message::new(kind, flags, &head)
            .maybe(FRA_SRC, source)
            .maybe(FRA_PRIORITY, self.priority.map(u32::to_ne_bytes))
            .maybe(FRA_PROTOCOL, self.ours.then_some([OURS]))
            .number(FRA_TABLE, self.table)
    }

    fn parse(body: &[u8]) -> Option<Self> {
        let (&[af, _, len, _, table, _, _, action, ..], rest) = body.split_first_chunk::<12>()?;
        if action != FR_ACT_TO_TBL {
            return None;
        }
        let all = match libc::c_int::from(af) {
            libc::AF_INET => Prefix::ALL_V4,
            libc::AF_INET6 => Prefix::ALL_V6,
            _ => return None,
        };
        let from = Prefix { len, ..all };
        // A rule without one is the first.
        let mut rule = Self { from, table: table.into(), priority: Some(0), ours: false };
        for a in attributes(rest) {
            match a.kind {
                FRA_SRC => rule.from.ip = to_ip(a.value)?,
                FRA_PRIORITY => rule.priority = a.number(),
                FRA_TABLE => rule.table = a.number()?,
                FRA_PROTOCOL => rule.ours = a.value == [OURS],
                _ => {}
            }
        }
        Some(rule)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "from {} lookup {}", self.from, self.table)
    }
}
