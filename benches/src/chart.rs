//! What all charts have in common.
//!
//! They are SVG, because drawing letters into a PNG takes a font, which would be a library of the
//! system or a megabyte here.

use plotters::coord::CoordTranslate;
use plotters::prelude::*;

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

/// The end of a chart: which line is whose.
pub(crate) fn draw_legend<'a, B: DrawingBackend + 'a, C: CoordTranslate>(
    chart: &mut ChartContext<'a, B, C>,
) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .draw()
}

/// The mark of a line in the legend.
pub(crate) fn mark(colour: RGBColor, (x, y): (i32, i32)) -> PathElement<(i32, i32)> {
    PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2))
}
