//! Colours, for paper and for the night.

use std::fmt::Write as _;

use plotters::style::RGBColor;

pub(super) const BACK: RGBColor = RGBColor(0xFF, 0xFF, 0xFF);
pub(super) const INK: RGBColor = RGBColor(0x1F, 0x23, 0x28);
pub(super) const MUTED: RGBColor = RGBColor(0x59, 0x63, 0x6E);
pub(super) const FAINT: RGBColor = RGBColor(0xE2, 0xE7, 0xEC);
pub(super) const ORANGE: RGBColor = RGBColor(0xD9, 0x48, 0x0F);
pub(super) const BLUE: RGBColor = RGBColor(0x0B, 0x6B, 0xCB);
pub(super) const VIOLET: RGBColor = RGBColor(0x82, 0x50, 0xDF);

/// What stands in for each of them where the viewer likes it dark.
const DARK: [(RGBColor, RGBColor); 7] = [
    (BACK, RGBColor(0x0D, 0x11, 0x17)),
    (INK, RGBColor(0xF0, 0xF6, 0xFC)),
    (MUTED, RGBColor(0x9D, 0xA7, 0xB3)),
    (FAINT, RGBColor(0x2A, 0x31, 0x3A)),
    (ORANGE, RGBColor(0xFF, 0x8A, 0x3D)),
    (BLUE, RGBColor(0x58, 0xA6, 0xFF)),
    (VIOLET, RGBColor(0xBC, 0x8C, 0xFF)),
];

/// Adds the rules for the dark theme, and the fonts that systems have for their own labels.
pub(super) fn with_style(svg: &str) -> String {
    let mut style = String::from(
        "<style>text { font-family: system-ui, sans-serif }\n@media (prefers-color-scheme: dark) {\n",
    );
    for (light, dark) in DARK {
        let (light, dark) = (hex(light), hex(dark));
        let written = writeln!(
            style,
            "[fill=\"{light}\"] {{ fill: {dark} }} [stroke=\"{light}\"] {{ stroke: {dark} }}"
        );
        debug_assert!(written.is_ok(), "a string takes everything");
    }
    style.push_str("}</style>\n");
    match svg.split_once(">\n") {
        Some((head, rest)) => format!("{head}>\n{style}{rest}"),
        None => svg.to_owned(),
    }
}

fn hex(RGBColor(red, green, blue): RGBColor) -> String {
    format!("#{red:02X}{green:02X}{blue:02X}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dark_theme_has_a_colour_for_each() {
        let svg = with_style("<svg width=\"1\">\n<rect fill=\"#FFFFFF\"/>\n</svg>\n");
        assert!(svg.starts_with("<svg width=\"1\">\n<style>"));
        assert!(svg.contains("[fill=\"#FFFFFF\"] { fill: #0D1117 }"));
        assert!(svg.ends_with("</style>\n<rect fill=\"#FFFFFF\"/>\n</svg>\n"));
    }
}
