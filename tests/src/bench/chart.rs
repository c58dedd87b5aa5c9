//! One chart: lines over named places, with a logarithmic scale, as SVG.

use std::ops::Range;
use std::path::Path;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::*;

use crate::report::number;

const SIZE: (u32, u32) = (800, 480);
/// Below the plot, for the names of the lines.
const NAMES_HEIGHT: u32 = 70;

/// Lines over named places, in equal distances.
pub(crate) struct Chart {
    pub(crate) file: &'static str,
    pub(crate) title: String,
    pub(crate) x: &'static str,
    pub(crate) y: &'static str,
    pub(crate) places: Vec<String>,
    pub(crate) series: Vec<Line>,
}

pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) color: RGBColor,
    /// The place, and the value there.
    pub(crate) values: Vec<(f64, f64)>,
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

impl Chart {
    /// Writes it to its file in `directory`.
    pub(crate) fn draw(&self, directory: &Path) -> Drawn {
        let path = directory.join(self.file);
        let area = SVGBackend::new(&path, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let (plot, names) = area.split_vertically(SIZE.1 - NAMES_HEIGHT);
        let mut chart = ChartBuilder::on(&plot)
            .caption(&self.title, ("sans-serif", 20))
            .margin(12)
            .x_label_area_size(46)
            .y_label_area_size(84)
            .build_cartesian_2d(Axis::of_places(&self.places), self.scale())?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(BLACK.mix(0.12))
            .x_desc(self.x)
            .y_desc(self.y)
            .label_style(("sans-serif", 14))
            .axis_desc_style(("sans-serif", 15))
            .draw()?;
        for (index, line) in self.series.iter().enumerate() {
            let width = if index == 0 { 3 } else { 2 };
            let dots: Vec<(f64, f64)> = line.values.iter().map(|(x, y)| (*x, y.log10())).collect();
            chart.draw_series(LineSeries::new(dots.iter().copied(), line.color.stroke_width(width)))?;
            chart.draw_series(dots.into_iter().map(|at| Circle::new(at, width + 1, line.color.filled())))?;
        }
        self.draw_names(&names)?;
        area.present()?;
        Ok(())
    }

    /// Powers of ten, with some room above and below what there is.
    fn scale(&self) -> Axis {
        let values = || self.series.iter().flat_map(|line| &line.values).map(|(_, value)| *value);
        let lowest = values().fold(f64::INFINITY, f64::min) / 1.5;
        let highest = values().fold(0.0, f64::max) * 1.5;
        let powers = lowest.log10().floor() as i32..=highest.log10().ceil() as i32;
        let round = powers.flat_map(|power| [1_u8, 2, 5].map(|digit| format!("{digit}e{power}")));
        let marks = round.map(|text| text.parse().unwrap()).filter(|value| (lowest..highest).contains(value));
        let name = |value: f64| if value < 10.0 { value.to_string() } else { number(value) };
        let marks = marks.map(|value: f64| (value.log10(), name(value))).collect();
        Axis { range: lowest.log10()..highest.log10(), marks }
    }

    /// The names of the lines, in rows of three below the plot.
    fn draw_names(&self, area: &DrawingArea<SVGBackend<'_>, Shift>) -> Drawn {
        for (index, line) in self.series.iter().enumerate() {
            let (x, y) = (96 + (index % 3) as i32 * 232, 14 + (index / 3) as i32 * 20);
            area.draw(&PathElement::new([(x, y), (x + 22, y)], line.color.stroke_width(3)))?;
            area.draw(&Text::new(line.name.clone(), (x + 28, y - 7), ("sans-serif", 14)))?;
        }
        Ok(())
    }
}

/// An axis with marks exactly where they are wanted.
struct Axis {
    range: Range<f64>,
    marks: Vec<(f64, String)>,
}

impl Axis {
    /// Places in equal distances, from 0.
    fn of_places(names: &[String]) -> Self {
        let marks = names.iter().enumerate().map(|(place, name)| (place as f64, name.clone())).collect();
        Self { range: -0.3..names.len() as f64 - 0.7, marks }
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let share = (value - self.range.start) / (self.range.end - self.range.start);
        limit.0 + (f64::from(limit.1 - limit.0) * share).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        self.marks.iter().map(|(value, _)| *value).collect()
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        let mark = self.marks.iter().find(|(at, _)| at.total_cmp(value).is_eq());
        mark.map(|(_, name)| name.clone()).unwrap_or_default()
    }
}
