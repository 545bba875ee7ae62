//! System calls that are refused, as a container's filter or an old kernel refuses them: seccomp.

use std::process::Command;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use crate::{GIVEN_PORTS, give_ports};

/// A call that is refused with an error; with a flag, only where that argument has it.
#[derive(Debug, Clone, Copy)]
pub struct Refusal {
    /// The call's number (`libc::SYS_*`).
    pub call: i64,
    /// The argument's index and the flag.
    pub flag: Option<(u8, u64)>,
    /// The error.
    pub errno: i32,
}

/// Set in the process that runs a test to which calls are refused.
const INSIDE: &str = "SHOAL_REFUSED";

/// Whether these calls are refused to this process and to all that it starts. If not, the test is run again in a process
/// where they are, and has to pass there; the caller returns. A process of its own, because the standard library remembers
/// which calls there are.
///
/// # Panics
/// When the test fails there.
#[must_use]
pub fn refused(test: &str, refusals: &[Refusal]) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let (test, refusals, ports) = (test.to_owned(), refusals.to_vec(), give_ports());
    // Refused to a thread and what it starts; there is no way back.
    let inside = std::thread::spawn(move || {
        refuse(&refusals);
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([&*test, "--exact", "--nocapture", "--test-threads=1"]).env(INSIDE, "1");
        // Locks may be among the calls, so it cannot take ports itself.
        command.env(GIVEN_PORTS, ports);
        assert!(command.status().unwrap().success(), "{test} failed where calls are refused");
    });
    inside.join().unwrap();
    false
}

fn refuse(refusals: &[Refusal]) {
    for refusal in refusals {
        let rules = refusal.flag.map(|(argument, flag)| {
            let is_set = SeccompCmpOp::MaskedEq(flag);
            let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, is_set, flag);
            SeccompRule::new(vec![condition.unwrap()]).unwrap()
        });
        let filter = SeccompFilter::new(
            [(refusal.call, rules.into_iter().collect())].into(),
            SeccompAction::Allow,
            SeccompAction::Errno(refusal.errno.unsigned_abs()),
            std::env::consts::ARCH.try_into().unwrap(),
        );
        let program: BpfProgram = filter.unwrap().try_into().unwrap();
        // Filters add up: what one of them refuses is refused.
        seccompiler::apply_filter(&program).unwrap();
    }
}
