//! Where on Earth a raster lies: bounds and footprint in longitude and latitude on WGS 84.

use gdal::Dataset;
use gdal::spatial_ref::{AxisMappingStrategy, CoordTransform, SpatialRef};
use serde_json::{Value, json};

use crate::environment::take_messages;
use crate::model::Bounds;

/// Points per edge of the outline, so that curved edges stay close.
const EDGE_POINTS: usize = 21;
/// Points per side of the grid that stands in where the outline has no coordinates (a full disk seen from space).
const GRID_POINTS: usize = 65;
/// Digits after the point: about 1 cm.
const DIGITS: f64 = 1e7;

type Point = (f64, f64);

/// A raster's place.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed {
    /// West > east where it crosses the antimeridian.
    pub bounds: Bounds,
    /// GeoJSON polygon, or multipolygon where it is split.
    pub geometry: Value,
}

/// Bounds in the raster's own CRS, from the geotransform or else the ground control points.
#[must_use]
pub fn native_bounds(dataset: &Dataset) -> Option<Bounds> {
    let points = if has_transform(dataset) {
        let (width, height) = size(dataset);
        [(0.0, 0.0), (width, 0.0), (width, height), (0.0, height)].map(|p| apply(dataset, p)).to_vec()
    } else {
        dataset.gcps().iter().map(|gcp| (gcp.x(), gcp.y())).collect()
    };
    bounds_of(&points)
}

/// Place of a dataset whose CRS is `srs`; none where nothing of it has coordinates.
pub(crate) fn footprint(dataset: &Dataset, srs: &SpatialRef) -> Option<Placed> {
    let mut wgs84 = SpatialRef::from_epsg(4326).ok()?;
    wgs84.set_axis_mapping_strategy(AxisMappingStrategy::TraditionalGisOrder);
    let transform = CoordTransform::new(srs, &wgs84).ok()?;
    let outline = outline(dataset)?;
    let ring = to_wgs84(&transform, &outline);
    take_messages();
    if ring.iter().all(Option::is_some) {
        return place(&ring.into_iter().flatten().collect::<Vec<_>>());
    }
    let inner: Vec<Point> = to_wgs84(&transform, &grid(dataset)?).into_iter().flatten().collect();
    take_messages();
    let bounds = bounds_of(&inner)?;
    place(&rectangle(&bounds))
}

/// Splits a ring of longitudes and latitudes at the antimeridian and closes it over a pole.
#[must_use]
pub fn place(ring: &[Point]) -> Option<Placed> {
    let unwrapped = unwrap(ring);
    let bounds = bounds_of(&unwrapped)?;
    let turn = closing_turn(&unwrapped);
    if turn.abs() > 180.0 {
        // The outline goes round a pole: everything from there to the outline's far latitude.
        let (south, north) =
            if bounds.south + bounds.north >= 0.0 { (bounds.south, 90.0) } else { (-90.0, bounds.north) };
        let cap = Bounds { west: -180.0, south, east: 180.0, north };
        return Some(Placed { bounds: cap, geometry: polygon(&rectangle(&cap)) });
    }
    if bounds.east - bounds.west >= 360.0 {
        let whole = Bounds { west: -180.0, east: 180.0, ..bounds };
        return Some(Placed { bounds: rounded(whole), geometry: polygon(&rectangle(&whole)) });
    }
    let shift = -360.0 * ((bounds.west + 180.0) / 360.0).floor();
    let shifted: Vec<Point> = unwrapped.iter().map(|(x, y)| (x + shift, *y)).collect();
    let (west, east) = (bounds.west + shift, bounds.east + shift);
    if east <= 180.0 {
        let bounds = Bounds { west, east, ..bounds };
        return Some(Placed { bounds: rounded(bounds), geometry: polygon(&shifted) });
    }
    let left = clip(&shifted, 180.0, true);
    let right: Vec<Point> = clip(&shifted, 180.0, false).into_iter().map(|(x, y)| (x - 360.0, y)).collect();
    let parts: Vec<Value> = [left, right].iter().map(|part| json!([coordinates(part)])).collect();
    let bounds = Bounds { west, east: east - 360.0, ..bounds };
    Some(Placed { bounds: rounded(bounds), geometry: json!({"type": "MultiPolygon", "coordinates": parts}) })
}

fn has_transform(dataset: &Dataset) -> bool {
    // GDAL answers the identity, or an error, for a raster without one.
    let transform = dataset.geo_transform();
    take_messages();
    transform.is_ok_and(|t| t != [0.0, 1.0, 0.0, 0.0, 0.0, 1.0])
}

fn size(dataset: &Dataset) -> Point {
    let (width, height) = dataset.raster_size();
    (width as f64, height as f64)
}

fn apply(dataset: &Dataset, (x, y): Point) -> Point {
    let t = dataset.geo_transform().unwrap_or([0.0, 1.0, 0.0, 0.0, 0.0, 1.0]);
    (t[0] + x * t[1] + y * t[2], t[3] + x * t[4] + y * t[5])
}

fn outline(dataset: &Dataset) -> Option<Vec<Point>> {
    if !has_transform(dataset) {
        return native_bounds(dataset).map(|bounds| rectangle(&bounds));
    }
    let (width, height) = size(dataset);
    let steps = |n: usize| n as f64 / (EDGE_POINTS - 1) as f64;
    let edge = |from: Point, to: Point| {
        (0..EDGE_POINTS - 1)
            .map(move |n| (from.0 + (to.0 - from.0) * steps(n), from.1 + (to.1 - from.1) * steps(n)))
    };
    // Counter-clockwise for a north-up raster, as GeoJSON wants.
    let corners = [(0.0, 0.0), (0.0, height), (width, height), (width, 0.0)];
    let points = (0..4).flat_map(|n| edge(corners[n], corners[(n + 1) % 4]));
    Some(points.map(|point| apply(dataset, point)).collect())
}

fn grid(dataset: &Dataset) -> Option<Vec<Point>> {
    if !has_transform(dataset) {
        return None;
    }
    let (width, height) = size(dataset);
    let at = |n: usize| n as f64 / (GRID_POINTS - 1) as f64;
    let cells = (0..GRID_POINTS).flat_map(|row| (0..GRID_POINTS).map(move |column| (column, row)));
    Some(cells.map(|(column, row)| apply(dataset, (at(column) * width, at(row) * height))).collect())
}

fn to_wgs84(transform: &CoordTransform, points: &[Point]) -> Vec<Option<Point>> {
    points
        .iter()
        .map(|(x, y)| {
            let (mut x, mut y) = ([*x], [*y]);
            let done = transform.transform_coords(&mut x, &mut y, &mut []).is_ok();
            let usable = done && x[0].is_finite() && y[0].is_finite() && y[0].abs() <= 90.0 + 1e-6;
            usable.then(|| (x[0], y[0].clamp(-90.0, 90.0)))
        })
        .collect()
}

/// Makes neighbours less than half a turn apart.
fn unwrap(ring: &[Point]) -> Vec<Point> {
    let mut points: Vec<Point> = Vec::with_capacity(ring.len());
    for (x, y) in ring {
        let turns = points.last().map_or(0.0, |last| ((last.0 - x) / 360.0).round());
        points.push((x + 360.0 * turns, *y));
    }
    points
}

/// How far the ring is from closing: a full turn where it goes round a pole.
fn closing_turn(points: &[Point]) -> f64 {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return 0.0 };
    let step = first.0 - last.0;
    360.0 * (step / 360.0).round()
}

fn clip(points: &[Point], limit: f64, keep_west: bool) -> Vec<Point> {
    let inside = |p: &Point| if keep_west { p.0 <= limit } else { p.0 >= limit };
    let mut kept = Vec::new();
    for (n, current) in points.iter().enumerate() {
        let previous = points[(n + points.len() - 1) % points.len()];
        if inside(current) != inside(&previous) {
            let share = (limit - previous.0) / (current.0 - previous.0);
            kept.push((limit, previous.1 + share * (current.1 - previous.1)));
        }
        if inside(current) {
            kept.push(*current);
        }
    }
    kept
}

fn rectangle(b: &Bounds) -> Vec<Point> {
    vec![(b.west, b.north), (b.west, b.south), (b.east, b.south), (b.east, b.north)]
}

fn bounds_of(points: &[Point]) -> Option<Bounds> {
    let first = points.first()?;
    let start = Bounds { west: first.0, south: first.1, east: first.0, north: first.1 };
    let bounds = points.iter().fold(start, |b, (x, y)| Bounds {
        west: b.west.min(*x),
        south: b.south.min(*y),
        east: b.east.max(*x),
        north: b.north.max(*y),
    });
    let finite = [bounds.west, bounds.south, bounds.east, bounds.north].iter().all(|value| value.is_finite());
    finite.then_some(bounds)
}

fn round(value: f64) -> f64 {
    (value * DIGITS).round() / DIGITS
}

fn rounded(b: Bounds) -> Bounds {
    Bounds { west: round(b.west), south: round(b.south), east: round(b.east), north: round(b.north) }
}

fn coordinates(points: &[Point]) -> Value {
    let mut ring: Vec<Value> = points.iter().map(|(x, y)| json!([round(*x), round(*y)])).collect();
    if signed_area(points) < 0.0 {
        ring.reverse();
    }
    if let Some(first) = ring.first().cloned() {
        ring.push(first);
    }
    Value::Array(ring)
}

fn signed_area(points: &[Point]) -> f64 {
    let next = |n: usize| points[(n + 1) % points.len()];
    (0..points.len()).map(|n| points[n].0 * next(n).1 - next(n).0 * points[n].1).sum()
}

fn polygon(points: &[Point]) -> Value {
    json!({"type": "Polygon", "coordinates": [coordinates(points)]})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(west: f64, south: f64, east: f64, north: f64) -> Vec<Point> {
        rectangle(&Bounds { west, south, east, north })
    }

    #[test]
    fn a_plain_rectangle_stays_one() {
        let placed = place(&ring(10.0, 40.0, 20.0, 50.0)).expect("has a place");
        assert_eq!(placed.geometry["type"], "Polygon");
        assert_eq!((placed.bounds.west, placed.bounds.east), (10.0, 20.0));
        assert_eq!(placed.geometry["coordinates"][0][0], placed.geometry["coordinates"][0][4], "closed");
    }

    #[test]
    fn a_ring_over_the_antimeridian_is_split() {
        // As a transformation gives it: longitudes jump from 179 to -179.
        let placed =
            place(&[(170.0, 10.0), (170.0, -10.0), (-170.0, -10.0), (-170.0, 10.0)]).expect("has a place");
        assert_eq!(placed.geometry["type"], "MultiPolygon");
        assert_eq!((placed.bounds.west, placed.bounds.east), (170.0, -170.0));
        let longitudes: Vec<f64> = placed.geometry["coordinates"]
            .as_array()
            .expect("parts")
            .iter()
            .flat_map(|part| {
                part[0].as_array().expect("a ring").iter().map(|p| p[0].as_f64().expect("a number"))
            })
            .collect();
        assert!(longitudes.iter().all(|x| (-180.0..=180.0).contains(x)), "{longitudes:?}");
    }

    #[test]
    fn longitudes_of_0_to_360_are_split_too() {
        let placed = place(&ring(150.0, -5.0, 210.0, 5.0)).expect("has a place");
        assert_eq!((placed.bounds.west, placed.bounds.east), (150.0, -150.0));
    }

    #[test]
    fn the_whole_world_and_a_pole_are_rectangles() {
        let mut world = Vec::new();
        for n in 0..=20 {
            world.push((-180.0 + 18.0 * f64::from(n), -90.0));
        }
        for n in 0..=20 {
            world.push((180.0 - 18.0 * f64::from(n), 90.0));
        }
        let placed = place(&world).expect("has a place");
        assert_eq!((placed.bounds.west, placed.bounds.east), (-180.0, 180.0));
        let pole: Vec<Point> = (0..36).map(|n| (f64::from(n) * 10.0 - 180.0, 70.0)).collect();
        let placed = place(&pole).expect("has a place");
        assert_eq!((placed.bounds.south, placed.bounds.north), (70.0, 90.0));
    }
}
