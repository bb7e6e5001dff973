//! What all charts have in common.
//!
//! They are SVG, because drawing letters into a PNG takes a font, which would be a library of the
//! system or a megabyte here.

use plotters::style::RGBColor;

/// Width and height in pixels.
pub(crate) const SIZE: (u32, u32) = (960, 540);

/// Colours that are told apart in print and by most eyes (Okabe and Ito), in the order of the
/// allocators.
pub(crate) const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(148, 103, 89),
    RGBColor(90, 90, 90),
];
