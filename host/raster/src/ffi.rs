//! The few GDAL calls that the `gdal` crate does not offer: raw pixels of any type, and copies with progress.

#![expect(unsafe_code, reason = "calls into GDAL's C API; each block says why it is sound")]

use std::ffi::{CString, c_char, c_int, c_void};
use std::path::Path;

use gdal::Dataset;
use gdal_sys::{CPLErr, GDALDataType, GDALRWFlag};

use crate::error::{FILE_UNREADABLE, GDAL_ERROR, RasterError};

/// A pixel type, complex ones included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PixelType(GDALDataType::Type);

/// The type of masks: bytes, whatever the band is.
pub(crate) const BYTE: PixelType = PixelType(GDALDataType::GDT_Byte);

impl PixelType {
    /// The name that the plugin contract uses.
    pub(crate) fn name(self) -> &'static str {
        match self.0 {
            GDALDataType::GDT_Byte => "uint8",
            GDALDataType::GDT_UInt16 => "uint16",
            GDALDataType::GDT_Int16 => "int16",
            GDALDataType::GDT_UInt32 => "uint32",
            GDALDataType::GDT_Int32 => "int32",
            GDALDataType::GDT_Float32 => "float32",
            GDALDataType::GDT_Float64 => "float64",
            GDALDataType::GDT_CInt16 => "cint16",
            GDALDataType::GDT_CInt32 => "cint32",
            GDALDataType::GDT_CFloat32 => "cfloat32",
            GDALDataType::GDT_CFloat64 => "cfloat64",
            // Numbers of GDAL's GDALDataType that older bindings do not name.
            12 => "uint64",
            13 => "int64",
            14 => "int8",
            _ => "unknown",
        }
    }

    /// Whether samples are real floating-point numbers.
    pub(crate) fn is_float(self) -> bool {
        matches!(self.0, GDALDataType::GDT_Float32 | GDALDataType::GDT_Float64)
    }

    /// Bytes of one sample.
    pub(crate) fn bytes(self) -> usize {
        // SAFETY: a pure function of a number.
        let bytes = unsafe { gdal_sys::GDALGetDataTypeSizeBytes(self.0) };
        usize::try_from(bytes).unwrap_or(0)
    }
}

/// A window in pixels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) x: usize,
    pub(crate) y: usize,
    pub(crate) width: usize,
    pub(crate) height: usize,
}

/// Which plane to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plane {
    /// A band, from 1.
    Band(usize),
    /// The mask of the first band.
    Mask,
}

/// Pixel type of a band, from 1.
pub(crate) fn pixel_type(dataset: &Dataset, band: usize) -> PixelType {
    let handle = band_handle(dataset, Plane::Band(band));
    if handle.is_null() {
        return PixelType(GDALDataType::GDT_Unknown);
    }
    // SAFETY: the handle is not null and lives as long as the dataset, which is borrowed.
    PixelType(unsafe { gdal_sys::GDALGetRasterDataType(handle) })
}

/// Reads a window in the plane's own type into `buffer`, which is resized to fit.
pub(crate) fn read_raw(
    dataset: &Dataset,
    plane: Plane,
    window: Window,
    kind: PixelType,
    buffer: &mut Vec<u8>,
) -> Result<(), RasterError> {
    buffer.resize(window.width * window.height * kind.bytes(), 0);
    read_into(dataset, plane, window, kind, buffer, window.width)
}

/// Reads a window in the plane's own type into rows of `stride` samples, the first of which `buffer` begins with.
pub(crate) fn read_into(
    dataset: &Dataset,
    plane: Plane,
    window: Window,
    kind: PixelType,
    buffer: &mut [u8],
    stride: usize,
) -> Result<(), RasterError> {
    let sample = kind.bytes();
    let needed = (window.height.saturating_sub(1) * stride + window.width) * sample;
    let line = i32::try_from(stride * sample).ok();
    let handle = band_handle(dataset, plane);
    let [x, y, width, height] = [window.x, window.y, window.width, window.height].map(|n| n as c_int);
    let fits = buffer.len() >= needed && stride >= window.width;
    let status = if let (false, true, Some(line)) = (handle.is_null(), fits, line) {
        // SAFETY: the handle belongs to the borrowed dataset; the buffer holds height rows of `line` bytes, the last
        // one at least as long as the window; a pixel spacing of 0 means densely packed.
        unsafe {
            gdal_sys::GDALRasterIO(
                handle,
                GDALRWFlag::GF_Read,
                x,
                y,
                width,
                height,
                buffer.as_mut_ptr().cast::<c_void>(),
                width,
                height,
                kind.0,
                0,
                line,
            )
        }
    } else {
        CPLErr::CE_Failure
    };
    if status == CPLErr::CE_None {
        return Ok(());
    }
    let rows = format!("the pixels of rows {} to {} cannot be read", window.y, window.y + window.height - 1);
    Err(RasterError::gdal(FILE_UNREADABLE, &rows))
}

/// Copies `source` with a driver, reporting progress from 0 to 1.
pub(crate) fn create_copy(
    driver: &str,
    source: &Dataset,
    target: &Path,
    options: &[String],
    progress: &mut dyn FnMut(f64),
) -> Result<Dataset, RasterError> {
    let invalid = |_| RasterError::permanent(GDAL_ERROR, "an option contains a NUL character");
    let name = CString::new(driver).map_err(invalid)?;
    let path = CString::new(target.to_string_lossy().as_bytes()).map_err(invalid)?;
    let texts =
        options.iter().map(|o| CString::new(o.as_str())).collect::<Result<Vec<_>, _>>().map_err(invalid)?;
    let mut list: Vec<*mut c_char> = texts.iter().map(|text| text.as_ptr().cast_mut()).collect();
    list.push(std::ptr::null_mut());
    let mut callback: &mut dyn FnMut(f64) = progress;
    // SAFETY: all pointers live until the call returns; GDAL does not write to the option strings; the progress
    // pointer is a `&mut &mut dyn FnMut` that only `on_progress` reads, during the call.
    let handle = unsafe {
        let driver = gdal_sys::GDALGetDriverByName(name.as_ptr());
        if driver.is_null() {
            return Err(RasterError::permanent(
                GDAL_ERROR,
                format!("this GDAL has no driver {}", name.to_string_lossy()),
            ));
        }
        gdal_sys::GDALCreateCopy(
            driver,
            path.as_ptr(),
            source.c_dataset(),
            0,
            list.as_mut_ptr(),
            Some(on_progress),
            std::ptr::from_mut(&mut callback).cast::<c_void>(),
        )
    };
    if handle.is_null() {
        return Err(RasterError::gdal(GDAL_ERROR, "the output cannot be written"));
    }
    // SAFETY: a fresh handle that nobody else owns.
    Ok(unsafe { Dataset::from_c_dataset(handle) })
}

/// A dataset that reprojects `source` while it is read. `arguments` are those of `gdalwarp`.
pub(crate) fn warp(source: &Dataset, arguments: &[&str]) -> Result<Dataset, RasterError> {
    let invalid = |_| RasterError::permanent(GDAL_ERROR, "an argument contains a NUL character");
    let texts =
        arguments.iter().map(|text| CString::new(*text)).collect::<Result<Vec<_>, _>>().map_err(invalid)?;
    let mut list: Vec<*mut c_char> = texts.iter().map(|text| text.as_ptr().cast_mut()).collect();
    list.push(std::ptr::null_mut());
    let mut sources = [source.c_dataset()];
    // SAFETY: all pointers live until the calls return; GDAL copies the arguments; the options are freed once, after their
    // use; the result keeps its own reference to the source.
    let handle = unsafe {
        let options = gdal_sys::GDALWarpAppOptionsNew(list.as_mut_ptr(), std::ptr::null_mut());
        if options.is_null() {
            return Err(RasterError::gdal(GDAL_ERROR, "the reprojection cannot be set up"));
        }
        let name = c"".as_ptr();
        let none = std::ptr::null_mut();
        let handle = gdal_sys::GDALWarp(name, none, 1, sources.as_mut_ptr(), options, std::ptr::null_mut());
        gdal_sys::GDALWarpAppOptionsFree(options);
        handle
    };
    if handle.is_null() {
        return Err(RasterError::gdal(GDAL_ERROR, "the raster cannot be reprojected"));
    }
    // SAFETY: a fresh handle that nobody else owns.
    Ok(unsafe { Dataset::from_c_dataset(handle) })
}

/// Flushes and closes; the only moment at which some write errors show.
pub(crate) fn close(dataset: Dataset) -> Result<(), RasterError> {
    dataset.close().map_err(|_| RasterError::gdal(GDAL_ERROR, "the output cannot be finished"))?;
    let late = crate::environment::take_messages();
    if late.is_empty() {
        Ok(())
    } else {
        Err(RasterError::from_reasons(GDAL_ERROR, "the output cannot be finished", &late))
    }
}

/// Removes every driver but these from the process, so that nothing can be opened by another one, not even from
/// within a library call.
pub(crate) fn keep_drivers(input: &[&str], internal: &[&str]) {
    let wanted: Vec<CString> =
        input.iter().chain(internal).filter_map(|name| CString::new(*name).ok()).collect();
    // SAFETY: the handles are those of registered drivers, asked for by valid names or indices; a removed one is
    // not used again. Backwards, so that removals do not move what is still to come.
    unsafe {
        let kept: Vec<_> = wanted.iter().map(|name| gdal_sys::GDALGetDriverByName(name.as_ptr())).collect();
        for index in (0..gdal_sys::GDALGetDriverCount()).rev() {
            let driver = gdal_sys::GDALGetDriver(index);
            if !driver.is_null() && !kept.contains(&driver) {
                gdal_sys::GDALDeregisterDriver(driver);
            }
        }
    }
}

/// Bounds GDAL's block cache from now on.
pub(crate) fn set_block_cache(bytes: u64) {
    // SAFETY: a setter without preconditions.
    unsafe { gdal_sys::GDALSetCacheMax64(i64::try_from(bytes).unwrap_or(i64::MAX)) };
}

/// PROJ fetches no grids, whatever its configuration file says.
pub(crate) fn disable_proj_network() {
    // SAFETY: a setter without preconditions.
    unsafe { gdal_sys::OSRSetPROJEnableNetwork(0) };
}

extern "C" fn on_progress(fraction: f64, _message: *const c_char, data: *mut c_void) -> c_int {
    // SAFETY: `data` is the pointer that `create_copy` passes, valid during its call.
    let callback = unsafe { &mut *data.cast::<&mut dyn FnMut(f64)>() };
    callback(fraction);
    1
}

fn band_handle(dataset: &Dataset, plane: Plane) -> gdal_sys::GDALRasterBandH {
    let index = if let Plane::Band(index) = plane { index } else { 1 };
    // SAFETY: the dataset is open; GDAL answers null for a band that does not exist, and a mask exists for
    // every band.
    unsafe {
        let band = gdal_sys::GDALGetRasterBand(dataset.c_dataset(), index as c_int);
        if plane == Plane::Mask && !band.is_null() { gdal_sys::GDALGetMaskBand(band) } else { band }
    }
}
