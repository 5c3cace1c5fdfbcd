//! GDAL's view of the objects that this process reads through its supervisor: a virtual file system with two files.

#![expect(unsafe_code, reason = "callbacks that GDAL's C API calls; each block says why it is sound")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::io;
use std::path::Path;

use gdal_sys::vsi_l_offset;

use crate::object::Object;

/// Paths of objects begin with it.
const PREFIX: &CStr = c"/vsigeoworker/";
/// GDAL reads in pieces of this size and keeps some of them: headers and small tiles are many small reads.
const BUFFER_BYTES: usize = 1 << 20;
pub(crate) const CACHE_BYTES: usize = 8 << 20;
/// What `stat` says: a regular file that can be read.
const MODE: libc::mode_t = libc::S_IFREG | 0o444;

/// An open file: where it is read, and whether the end was met.
struct Handle {
    object: Object,
    position: u64,
    at_end: bool,
}

/// Installs the file system.
///
/// # Errors
/// Where GDAL does not take it.
pub(crate) fn install() -> io::Result<()> {
    // SAFETY: GDAL allocates the structure, zeroed and as large as its version wants; it copies it when it is installed.
    let installed = unsafe {
        let callbacks = gdal_sys::VSIAllocFilesystemPluginCallbacksStruct();
        let Some(fields) = callbacks.as_mut() else { return Err(io::ErrorKind::OutOfMemory.into()) };
        fields.stat = Some(stat);
        fields.open = Some(open);
        fields.tell = Some(tell);
        fields.seek = Some(seek);
        fields.read = Some(read);
        fields.eof = Some(eof);
        fields.close = Some(close);
        fields.nBufferSize = BUFFER_BYTES;
        fields.nCacheSize = CACHE_BYTES;
        let installed = gdal_sys::VSIInstallPluginHandler(PREFIX.as_ptr(), callbacks);
        gdal_sys::VSIFreeFilesystemPluginCallbacksStruct(callbacks);
        installed
    };
    if installed == 0 { Ok(()) } else { Err(io::Error::other("GDAL takes no virtual file system")) }
}

/// The object that GDAL means. Callbacks get the name without the prefix.
fn named(name: *const c_char) -> Option<Object> {
    if name.is_null() {
        return None;
    }
    // SAFETY: not null, and GDAL passes a text that ends.
    let name = unsafe { CStr::from_ptr(name) }.to_str().ok()?;
    let prefix = PREFIX.to_str().ok()?;
    let path = format!("{prefix}{}", name.strip_prefix(prefix).unwrap_or(name).trim_start_matches('/'));
    Object::at(Path::new(&path))
}

unsafe extern "C" fn stat(
    _: *mut c_void,
    name: *const c_char,
    answer: *mut gdal_sys::VSIStatBufL,
    _: c_int,
) -> c_int {
    let Some(size) = named(name).and_then(|object| i64::try_from(object.size()).ok()) else { return -1 };
    // SAFETY: GDAL passes room for the C library's `stat64`, or null; its bindings leave that structure out.
    let Some(answer) = (unsafe { answer.cast::<libc::stat64>().as_mut() }) else { return -1 };
    answer.st_size = size;
    answer.st_mode = MODE;
    0
}

unsafe extern "C" fn open(_: *mut c_void, name: *const c_char, access: *const c_char) -> *mut c_void {
    // SAFETY: GDAL passes a text that ends, or null.
    let reads = !access.is_null() && unsafe { CStr::from_ptr(access) }.to_bytes().starts_with(b"r");
    match named(name).filter(|_| reads) {
        Some(object) => Box::into_raw(Box::new(Handle { object, position: 0, at_end: false })).cast(),
        None => std::ptr::null_mut(),
    }
}

/// The handle behind what GDAL got from [`open`] and has not given to [`close`].
fn handle<'a>(file: *mut c_void) -> Option<&'a mut Handle> {
    // SAFETY: GDAL passes what `open` returned, and uses a file from one thread at a time.
    unsafe { file.cast::<Handle>().as_mut() }
}

unsafe extern "C" fn tell(file: *mut c_void) -> vsi_l_offset {
    handle(file).map_or(0, |handle| handle.position)
}

unsafe extern "C" fn seek(file: *mut c_void, offset: vsi_l_offset, whence: c_int) -> c_int {
    const CURRENT: c_int = 1;
    const END: c_int = 2;
    let Some(handle) = handle(file) else { return -1 };
    handle.at_end = false;
    handle.position = match whence {
        CURRENT => handle.position.wrapping_add(offset),
        END => handle.object.size().wrapping_add(offset),
        _ => offset,
    };
    0
}

unsafe extern "C" fn read(file: *mut c_void, buffer: *mut c_void, size: usize, count: usize) -> usize {
    let (Some(handle), Some(length)) = (handle(file), size.checked_mul(count)) else { return 0 };
    if buffer.is_null() || length == 0 {
        return 0;
    }
    // SAFETY: GDAL passes room for `count` items of `size` bytes. It may hold anything before, so it is cleared: a slice
    // must be of initialised bytes.
    let room = unsafe {
        std::ptr::write_bytes(buffer.cast::<u8>(), 0, length);
        std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length)
    };
    let mut done = 0;
    while done < length {
        match handle.object.read_at(handle.position, &mut room[done..]) {
            Ok(0) | Err(_) => break,
            Ok(read) => {
                done += read;
                handle.position += read as u64;
            }
        }
    }
    handle.at_end = done < length;
    done / size
}

unsafe extern "C" fn eof(file: *mut c_void) -> c_int {
    handle(file).map_or(1, |handle| c_int::from(handle.at_end))
}

unsafe extern "C" fn close(file: *mut c_void) -> c_int {
    if !file.is_null() {
        // SAFETY: `open` made it, and GDAL closes a file once.
        drop(unsafe { Box::from_raw(file.cast::<Handle>()) });
    }
    0
}
