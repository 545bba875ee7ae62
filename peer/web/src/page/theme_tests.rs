//! The style's colours can be told apart (WCAG 2.2, 1.4.3 and 1.4.11): each pair that meets on the page, light and dark.

use std::collections::HashMap;

/// What stands on what, and the contrast that it needs: 4.5 for text, 3 for what only has to be seen.
const PAIRS: &[(&str, &[&str], f64)] = &[
    ("text", &["ground", "surface", "raised", "soft"], 4.5),
    ("muted", &["ground", "surface", "raised", "soft"], 4.5),
    ("accent", &["ground", "surface", "raised", "soft"], 4.5),
    ("on-accent", &["accent"], 4.5),
    ("good", &["surface"], 4.5),
    ("bad", &["ground", "surface"], 4.5),
    ("warn", &["soft"], 3.0),
    ("edge", &["ground", "surface"], 3.0),
    ("bar", &["raised"], 3.0),
];

/// The colours of a part of the style: `--name: #rrggbb`.
fn colours(style: &str) -> HashMap<&str, [f64; 3]> {
    let declared =
        style.split([';', '{']).filter_map(|part| part.trim().strip_prefix("--")?.split_once(": #"));
    let read = |hex: &str| {
        let part = |at: usize| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
        Some([part(0)?, part(2)?, part(4)?].map(|value| f64::from(value) / 255.0))
    };
    declared.filter_map(|(name, hex)| Some((name, read(hex)?))).collect()
}

fn luminance(colour: [f64; 3]) -> f64 {
    let linear = |value: f64| {
        if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
    };
    let [red, green, blue] = colour.map(linear);
    0.2126 * red + 0.7152 * green + 0.0722 * blue
}

#[test]
fn colours_that_meet_can_be_told_apart_light_and_dark() {
    let style = include_str!("assets/app.css");
    let (light, rest) = style.split_once("@media (prefers-color-scheme: dark)").unwrap();
    let dark = rest.split_once("\n}").unwrap().0;
    for (scheme, part) in [("light", light), ("dark", dark)] {
        let colours = colours(part);
        for (front, grounds, least) in PAIRS {
            for ground in *grounds {
                let (one, other) = (luminance(colours[front]), luminance(colours[ground]));
                let contrast = (one.max(other) + 0.05) / (one.min(other) + 0.05);
                assert!(contrast >= *least, "{scheme}: --{front} on --{ground}: {contrast:.2}");
            }
        }
    }
}
