use std::collections::HashMap;
use std::time::SystemTime;

use proptest::prelude::*;

use super::*;

const SIZE: u64 = 1_000;
/// What the monitor waits between two looks at most.
const POLL: Duration = Duration::from_secs(2);

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    Right,
    Wrong,
    /// Of another size.
    Short,
}

/// A file on a disk, the programs that change it, and the monitor that looks at it.
struct Disk {
    health: Health,
    now: Instant,
    /// What is at the path.
    file: Option<FileIdentity>,
    /// What was moved away.
    aside: Option<FileIdentity>,
    readable: bool,
    /// What every file that ever was holds.
    contents: HashMap<u64, Content>,
    clock: u64,
    /// The file that is being read, as it was at the beginning.
    reading: Option<FileIdentity>,
    served: Option<FileIdentity>,
    /// How long reading takes.
    took: Duration,
    checks: u32,
    reports: Vec<Report>,
}

impl Disk {
    fn new() -> Self {
        let now = Instant::now();
        let mut disk = Self {
            health: Health::unknown(identity(0, SIZE, 0, 0), now),
            now,
            file: None,
            aside: None,
            readable: true,
            contents: HashMap::new(),
            clock: 0,
            reading: None,
            served: None,
            took: Duration::ZERO,
            checks: 0,
            reports: Vec::new(),
        };
        disk.write(Content::Right, false);
        let recorded = disk.file.unwrap();
        (disk.health, disk.served) = (Health::known(recorded, now), Some(recorded));
        disk
    }

    /// Writes a file, in place or as another that is put in its place. The time of the last modification may be put back.
    fn write(&mut self, content: Content, in_place: bool) {
        self.clock += 1;
        let inode = self.file.filter(|_| in_place).map_or(self.clock, |file| file.inode);
        let size = if content == Content::Short { SIZE / 2 } else { SIZE };
        self.file = Some(identity(inode, size, 1, self.clock));
        self.contents.insert(self.clock, content);
    }

    fn content(&self, file: FileIdentity) -> Content {
        let since = file.changed.unwrap().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        self.contents[&since.as_secs()]
    }

    fn touch(&mut self) {
        if let Some(file) = self.file {
            let content = self.content(file);
            self.write(content, true);
        }
    }

    fn look(&mut self) {
        let found = self.file.map_or(Found::Absent(Absence::Gone), Found::File);
        let actions = self.health.looked(found, self.now);
        self.carry_out(actions);
    }

    fn read(&mut self) {
        let Some(begun) = self.reading.take() else { return };
        if !self.health.is_reading() {
            return;
        }
        let checked = match self.file {
            _ if !self.readable => Checked::Absent(Absence::Unreadable("I/O error".into())),
            None => Checked::Absent(Absence::Gone),
            Some(now) if now != begun => Checked::Written,
            Some(now) if self.content(now) == Content::Right => Checked::Same(now),
            Some(now) => Checked::Other(now),
        };
        let actions = self.health.checked(checked, self.took, self.now);
        self.carry_out(actions);
    }

    /// A peer asks for a piece.
    fn request(&mut self) {
        if self.served.is_some() && (self.served != self.file || !self.readable) {
            self.served = None;
            let actions = self.health.suspected(self.now);
            self.carry_out(actions);
        }
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Serve(file) => {
                    assert_eq!(
                        self.content(file),
                        Content::Right,
                        "served under an identity that is not the file's"
                    );
                    assert_eq!(self.file, Some(file));
                    self.served = Some(file);
                }
                Action::Withhold(_) => self.served = None,
                Action::Check => {
                    self.reading = self.file;
                    self.checks += 1;
                }
                Action::Report(report) => self.reports.push(report),
            }
        }
        assert_eq!(self.health.is_served(), self.served.is_some());
    }

    /// Lets the monitor do its work for a while, with nobody changing anything.
    fn rest(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            let due = self.health.due().unwrap_or(self.now + POLL).clamp(self.now, self.now + POLL);
            self.now = due.max(self.now + Duration::from_millis(1));
            self.look();
            self.read();
        }
    }
}

fn identity(inode: u64, size: u64, modified: u64, changed: u64) -> FileIdentity {
    let time = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    FileIdentity { size, modified: time(modified), changed: Some(time(changed)), device: 1, inode }
}

#[derive(Debug, Clone)]
enum Step {
    Touch,
    Write(bool, bool),
    Truncate,
    MoveAway,
    MoveBack,
    Delete,
    Readable(bool),
    Request,
    Look,
    Read,
    Wait(u64),
    Login,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::Touch),
        (any::<bool>(), any::<bool>()).prop_map(|(right, in_place)| Step::Write(right, in_place)),
        Just(Step::Truncate),
        Just(Step::MoveAway),
        Just(Step::MoveBack),
        Just(Step::Delete),
        any::<bool>().prop_map(Step::Readable),
        Just(Step::Request),
        Just(Step::Look),
        Just(Step::Look),
        Just(Step::Read),
        (1u64..3_000).prop_map(Step::Wait),
        (1u64..200_000).prop_map(Step::Wait),
        Just(Step::Login),
    ]
}

fn take(disk: &mut Disk, step: &Step) {
    match step {
        Step::Touch => disk.touch(),
        Step::Write(right, in_place) => {
            disk.write(if *right { Content::Right } else { Content::Wrong }, *in_place);
        }
        Step::Truncate => disk.write(Content::Short, true),
        Step::MoveAway => disk.aside = disk.file.take().or(disk.aside),
        Step::MoveBack => disk.file = disk.aside.take().or(disk.file),
        Step::Delete => disk.file = None,
        Step::Readable(readable) => disk.readable = *readable,
        Step::Request => disk.request(),
        Step::Look => disk.look(),
        Step::Read => disk.read(),
        Step::Wait(ms) => disk.now += Duration::from_millis(*ms),
        Step::Login => {
            (disk.health, disk.served) = (Health::unknown(disk.health.recorded, disk.now), None);
            disk.reading = None;
        }
    }
}

proptest! {
    /// Whatever happens in whatever order: only the right content is ever served (the disk asserts it), and some minutes
    /// after the last change what can be served is, and the user knows of what cannot.
    #[test]
    fn in_the_end_what_is_right_is_served_and_what_is_not_is_reported(
        steps in proptest::collection::vec(step(), 0..60),
    ) {
        let mut disk = Disk::new();
        for step in &steps {
            take(&mut disk, step);
        }
        // Reading fails only when a peer asks for a piece.
        disk.request();
        disk.rest(Duration::from_secs(400));
        disk.request();
        disk.rest(Duration::from_secs(200));
        let right = disk.file.is_some_and(|file| disk.content(file) == Content::Right);
        prop_assert_eq!(disk.served.is_some(), right && disk.readable, "{:?}", disk.health);
        if disk.served.is_none() {
            let last = disk.reports.last();
            let known = match disk.file {
                None => matches!(last, Some(Report::Absent(Absence::Gone))),
                Some(_) if !disk.readable => matches!(last, Some(Report::Absent(_) | Report::Changed)),
                Some(_) => last == Some(&Report::Changed),
            };
            prop_assert!(known, "{:?}", disk.reports);
        }
        let (reports, checks) = (disk.reports.len(), disk.checks);
        disk.rest(Duration::from_secs(600));
        prop_assert_eq!(disk.reports.len(), reports, "once is enough: {:?}", disk.reports);
        let most = if disk.readable { 0 } else { 11 };
        prop_assert!(disk.checks <= checks + most, "what does not change is not read again and again");
    }
}

#[test]
fn a_touched_file_is_back_within_a_second_and_nobody_is_bothered() {
    let mut disk = Disk::new();
    disk.touch();
    disk.look();
    assert_eq!(disk.served, None, "not for a moment");
    disk.rest(Duration::from_secs(1));
    assert_eq!((disk.served, disk.checks), (disk.file, 1));
    assert_eq!(disk.reports, []);
}

#[test]
fn a_file_that_is_written_for_long_is_read_once_it_is_whole() {
    let mut disk = Disk::new();
    for _ in 0..600 {
        disk.write(Content::Wrong, true);
        disk.rest(Duration::from_millis(300));
    }
    assert_eq!((disk.checks, disk.served), (0, None));
    let checking = disk.reports.iter().filter(|report| **report == Report::Checking).count();
    assert!((1..=4).contains(&checking) && checking == disk.reports.len(), "{:?}", disk.reports);
    disk.write(Content::Right, true);
    disk.rest(Duration::from_secs(10));
    assert_eq!((disk.checks, disk.served), (1, disk.file));
    assert_eq!(disk.reports.last(), Some(&Report::Back));
}

#[test]
fn a_file_that_is_touched_again_and_again_is_read_more_and_more_rarely() {
    let mut disk = Disk::new();
    for _ in 0..200 {
        disk.touch();
        disk.rest(Duration::from_secs(6));
    }
    assert!(disk.checks < 40, "{} checks in twenty minutes", disk.checks);
    disk.rest(Duration::from_secs(120));
    assert_eq!(disk.served, disk.file);
}

#[test]
fn a_drive_that_comes_back_is_not_read_again() {
    let mut disk = Disk::new();
    let file = disk.file.take();
    disk.request();
    disk.rest(Duration::from_secs(30));
    assert_eq!(disk.reports, [Report::Absent(Absence::Gone)]);
    // Another device number, as drives get each time.
    disk.file = file.map(|file| FileIdentity { device: 9, ..file });
    disk.rest(Duration::from_secs(3));
    assert_eq!((disk.served, disk.checks), (disk.file, 0));
    assert_eq!(disk.reports.last(), Some(&Report::Back));
}

#[test]
fn a_name_that_is_empty_for_a_moment_is_not_reported() {
    let mut disk = Disk::new();
    disk.file = None;
    disk.rest(Duration::from_secs(1));
    assert_eq!(disk.served, None);
    disk.write(Content::Right, false);
    disk.rest(Duration::from_secs(5));
    assert_eq!((disk.served, disk.reports.len()), (disk.file, 0));
}

#[test]
fn what_fails_to_be_read_is_tried_again_with_growing_pauses() {
    let mut disk = Disk::new();
    disk.readable = false;
    disk.request();
    disk.rest(Duration::from_secs(600));
    assert!((3..20).contains(&disk.checks), "{}", disk.checks);
    assert_eq!(disk.reports.len(), 1, "{:?}", disk.reports);
    disk.readable = true;
    disk.rest(Duration::from_secs(120));
    assert_eq!((disk.served, disk.reports.last()), (disk.file, Some(&Report::Back)));
}

#[test]
fn a_drive_that_does_not_answer_is_reported_at_once_and_believed_when_it_does() {
    let mut disk = Disk::new();
    for _ in 0..2 {
        let actions = disk.health.looked(Found::Absent(Absence::Silent), disk.now);
        disk.carry_out(actions);
    }
    assert_eq!((disk.served, disk.reports.clone()), (None, vec![Report::Absent(Absence::Silent)]));
    disk.look();
    assert_eq!((disk.served, disk.checks, disk.reports.len()), (disk.file, 0, 2));
}

#[test]
fn a_large_file_that_is_written_to_while_it_is_read_is_left_alone_for_longer_than_reading_takes() {
    let mut disk = Disk::new();
    disk.took = Duration::from_secs(600);
    disk.touch();
    let begins = |disk: &mut Disk| {
        while !disk.health.is_reading() {
            disk.now += POLL;
            disk.look();
        }
    };
    begins(&mut disk);
    disk.touch();
    disk.read();
    let over = disk.now;
    begins(&mut disk);
    assert!(disk.now - over >= disk.took * REST, "{:?}", disk.now - over);
    // What is read now need not be read to its end.
    disk.touch();
    disk.look();
    assert!(!disk.health.is_reading());
}
