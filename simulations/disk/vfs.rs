//! The simulated disk under SQLite: a VFS, registered as the default one.
//!
//! The only file with `unsafe`, because SQLite's interface to storage is a table of C functions. The argument: every
//! function gets back the very pointers that [`open`] and [`install`] gave to SQLite. A file object is written by `open`
//! before SQLite sees its methods, and freed by `close`, after which SQLite does not use it; SQLite serialises calls on one
//! connection, and no connection leaves its thread here. Buffers are as long as SQLite says. Memory shared between
//! connections is made of cells, and every file object that was given a region keeps it alive. Nothing here keeps a
//! reference across a call. All that is decided is decided in `machine` and `lock`, in safe code.
//!
//! Invariant: what no machine has under its directory goes to the system's own VFS, unchanged; the device promises
//! no atomic write and no order, and what the system's VFS promises: a torn write leaves alone what stands beside it. Callers: SQLite; `super`.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::path::Path;
use std::sync::Once;
use std::sync::atomic::{AtomicPtr, Ordering};

use rusqlite::ffi;

use super::lock::{NONE, Region};
use super::{APP, Fault, Handle, Kind, Phase, registry};

/// The system's own VFS.
static SYSTEM: AtomicPtr<ffi::sqlite3_vfs> = AtomicPtr::new(std::ptr::null_mut());

/// SQLite's file object, as this VFS lays it out.
#[repr(C)]
struct File {
    methods: *const ffi::sqlite3_io_methods,
    open: *mut Open,
}

struct Open {
    handle: Handle,
    /// Keeps alive what SQLite was given pointers to.
    regions: Vec<Region>,
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// Registers the VFS, once per process, and looks at the statements of every connection from now on.
pub(super) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: SQLite initialises itself in `find`; the new VFS and its name live for ever, and the system's does too.
        unsafe {
            let system = ffi::sqlite3_vfs_find(std::ptr::null());
            SYSTEM.store(system, Ordering::Release);
            let vfs = Box::leak(Box::new(ffi::sqlite3_vfs {
                iVersion: 2,
                szOsFile: (*system).szOsFile.max(size_of::<File>() as c_int),
                pNext: std::ptr::null_mut(),
                zName: c"simulated".as_ptr(),
                xOpen: Some(open),
                xDelete: Some(delete),
                xAccess: Some(access),
                xFullPathname: Some(full_pathname),
                xRandomness: Some(randomness),
                xSleep: Some(sleep),
                xCurrentTime: Some(current_time),
                xCurrentTimeInt64: Some(current_time_int64),
                ..*system
            }));
            ffi::sqlite3_vfs_register(vfs, 1);
            ffi::sqlite3_auto_extension(Some(connected));
        }
        // The first real file that a process opens has the system's VFS reset SQLite's random numbers: not in a run.
        let scratch = crate::world::scratch::Scratch::new();
        rusqlite::Connection::open(scratch.path().join("first.db")).expect("a temporary directory takes a file");
    });
}

/// Has SQLite draw its own random numbers anew from the VFS.
pub(super) fn forget_randomness() {
    // SAFETY: 0 bytes into nowhere is SQLite's documented way to reset its generator.
    unsafe { ffi::sqlite3_randomness(0, std::ptr::null_mut()) }
}

/// Puts an empty real file where a database of this name stands on the simulated disk.
pub(super) fn place(name: &str) {
    if !Path::new(name).exists() {
        std::fs::File::create(name).expect("the machine's directory takes files");
    }
}

fn system() -> *mut ffi::sqlite3_vfs {
    SYSTEM.load(Ordering::Acquire)
}

/// The name as text, where it is one.
unsafe fn text<'n>(name: *const c_char) -> Option<&'n str> {
    // SAFETY: the caller passes SQLite's name: null, or ended by a zero and alive during the call.
    (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) })?.to_str().ok()
}

fn code(fault: Fault, io: c_int) -> c_int {
    match fault {
        Fault::Dead | Fault::Io => io,
        Fault::Full => ffi::SQLITE_FULL,
        Fault::Busy => ffi::SQLITE_BUSY,
        Fault::Missing => ffi::SQLITE_CANTOPEN,
    }
}

fn told(result: Result<(), Fault>, io: c_int) -> c_int {
    result.err().map_or(ffi::SQLITE_OK, |fault| code(fault, io))
}

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite's pointers, valid during the call; the file object has room for ours and for the system's.
    unsafe {
        let kind = match flags {
            flags if flags & ffi::SQLITE_OPEN_MAIN_DB != 0 => Kind::Main,
            flags if flags & ffi::SQLITE_OPEN_WAL != 0 => Kind::Wal,
            flags if flags & ffi::SQLITE_OPEN_MAIN_JOURNAL != 0 => Kind::Journal,
            _ => Kind::Other,
        };
        let create = flags & ffi::SQLITE_OPEN_CREATE != 0;
        let opened = text(name).and_then(|name| Some((name, Handle::open(name, kind, create)?)));
        let Some((name, opened)) = opened else {
            return (*system()).xOpen.map_or(ffi::SQLITE_CANTOPEN, |open| open(system(), name, file, flags, out_flags));
        };
        let file = file.cast::<File>();
        (*file).methods = std::ptr::null();
        match opened {
            Err(fault) => code(fault, ffi::SQLITE_CANTOPEN),
            Ok(handle) => {
                if kind == Kind::Main {
                    place(name);
                }
                (*file).open = Box::into_raw(Box::new(Open { handle, regions: Vec::new() }));
                (*file).methods = &METHODS;
                if !out_flags.is_null() {
                    *out_flags = flags;
                }
                ffi::SQLITE_OK
            }
        }
    }
}

unsafe extern "C" fn delete(_: *mut ffi::sqlite3_vfs, name: *const c_char, sync: c_int) -> c_int {
    // SAFETY: SQLite's name, valid during the call.
    unsafe {
        let deleted = text(name).and_then(|name| {
            registry(|registry| registry.named(name, |machine, run, owner| machine.delete(run, owner, name, sync != 0)))
        });
        match deleted {
            None => (*system()).xDelete.map_or(ffi::SQLITE_IOERR_DELETE, |delete| delete(system(), name, sync)),
            Some(Err(Fault::Missing)) => ffi::SQLITE_IOERR_DELETE_NOENT,
            Some(result) => told(result, ffi::SQLITE_IOERR_DELETE),
        }
    }
}

unsafe extern "C" fn access(_: *mut ffi::sqlite3_vfs, name: *const c_char, flags: c_int, out: *mut c_int) -> c_int {
    // SAFETY: SQLite's pointers, valid during the call.
    unsafe {
        let found = text(name).and_then(|name| {
            registry(|registry| {
                registry.named(name, |machine, _, owner| {
                    let length = machine.find(name).map(|id| machine.file(id).live.len());
                    machine.lives(owner).then_some(length)
                })
            })
        });
        match found {
            None => (*system()).xAccess.map_or(ffi::SQLITE_IOERR, |access| access(system(), name, flags, out)),
            Some(None) => ffi::SQLITE_IOERR_ACCESS,
            Some(Some(length)) => {
                // As on Unix, an empty file does not exist: an empty journal is none.
                let least = usize::from(flags == ffi::SQLITE_ACCESS_EXISTS);
                *out = c_int::from(length.is_some_and(|length| length >= least));
                ffi::SQLITE_OK
            }
        }
    }
}

unsafe extern "C" fn full_pathname(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    room: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: SQLite's pointers, valid during the call; `out` has `room` bytes.
    unsafe {
        let own = text(name).filter(|name| registry(|registry| registry.machine_of(name).is_some()));
        match own {
            Some(own) if own.len() < room as usize => {
                std::ptr::copy_nonoverlapping(name, out, own.len() + 1);
                ffi::SQLITE_OK
            }
            Some(_) => ffi::SQLITE_CANTOPEN,
            None => (*system()).xFullPathname.map_or(ffi::SQLITE_CANTOPEN, |full| full(system(), name, room, out)),
        }
    }
}

unsafe extern "C" fn randomness(_: *mut ffi::sqlite3_vfs, count: c_int, out: *mut c_char) -> c_int {
    // SAFETY: `out` has `count` bytes.
    let out = unsafe { std::slice::from_raw_parts_mut(out.cast::<u8>(), count as usize) };
    registry(|registry| out.fill_with(|| registry.run.dice.bits() as u8));
    count
}

unsafe extern "C" fn sleep(_: *mut ffi::sqlite3_vfs, micros: c_int) -> c_int {
    // Nobody else runs meanwhile: waiting would change nothing.
    micros
}

/// Milliseconds between the julian epoch and that of Unix.
const JULIAN_MS: i64 = 210_866_760_000_000;

unsafe extern "C" fn current_time(_: *mut ffi::sqlite3_vfs, out: *mut f64) -> c_int {
    // SAFETY: SQLite's pointer, valid during the call.
    unsafe { *out = registry(|registry| (registry.run.wall_ms as i64 + JULIAN_MS) as f64 / 86_400_000.0) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn current_time_int64(_: *mut ffi::sqlite3_vfs, out: *mut i64) -> c_int {
    // SAFETY: SQLite's pointer, valid during the call.
    unsafe { *out = registry(|registry| registry.run.wall_ms as i64 + JULIAN_MS) };
    ffi::SQLITE_OK
}

/// A new connection: what its statements are about is noted.
unsafe extern "C" fn connected(
    connection: *mut ffi::sqlite3,
    _: *mut *mut c_char,
    _: *const ffi::sqlite3_api_routines,
) -> c_int {
    // SAFETY: SQLite's connection, being opened; the callback needs no context.
    unsafe { ffi::sqlite3_trace_v2(connection, ffi::SQLITE_TRACE_STMT as c_uint, Some(traced), std::ptr::null_mut()) }
}

unsafe extern "C" fn traced(_: c_uint, _: *mut c_void, _: *mut c_void, sql: *mut c_void) -> c_int {
    // SAFETY: for this event SQLite passes the statement's text.
    let Some(sql) = (unsafe { text(sql.cast()) }) else { return 0 };
    let phases = [
        ("SELECT seq, rid, mark", Phase::Drain),
        ("UPDATE main._litemesh_meta SET value = value + 1", Phase::Fence),
        ("UPDATE main._litemesh_meta SET value = ?1", Phase::Apply),
        ("DELETE FROM main._litemesh_outbox", Phase::Clear),
        ("PRAGMA main.wal_checkpoint", Phase::Checkpoint),
    ];
    if let Some((_, phase)) = phases.iter().find(|(start, _)| sql.starts_with(start)) {
        registry(|registry| {
            if registry.run.process != APP {
                registry.run.phase = *phase;
            }
        });
    }
    0
}

/// Ours behind SQLite's file object.
unsafe fn ours<'f>(file: *mut ffi::sqlite3_file) -> &'f mut Open {
    // SAFETY: `open` wrote it, and `close` has not been called.
    unsafe { &mut *(*file.cast::<File>()).open }
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: as in `ours`; SQLite uses the object no more.
    unsafe {
        drop(Box::from_raw((*file.cast::<File>()).open));
        (*file.cast::<File>()).methods = std::ptr::null();
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, out: *mut c_void, amount: c_int, at: i64) -> c_int {
    // SAFETY: `out` has `amount` bytes.
    let out = unsafe { std::slice::from_raw_parts_mut(out.cast::<u8>(), amount as usize) };
    // SAFETY: see `ours`.
    match unsafe { ours(file) }.handle.read(at as u64, out) {
        Ok(length) if length == out.len() => ffi::SQLITE_OK,
        Ok(_) => ffi::SQLITE_IOERR_SHORT_READ,
        Err(fault) => code(fault, ffi::SQLITE_IOERR_READ),
    }
}

unsafe extern "C" fn write(file: *mut ffi::sqlite3_file, data: *const c_void, amount: c_int, at: i64) -> c_int {
    // SAFETY: `data` has `amount` bytes.
    let data = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), amount as usize) };
    // SAFETY: see `ours`.
    told(unsafe { ours(file) }.handle.write(at as u64, data), ffi::SQLITE_IOERR_WRITE)
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: i64) -> c_int {
    // SAFETY: see `ours`.
    told(unsafe { ours(file) }.handle.set_length(size as u64), ffi::SQLITE_IOERR_TRUNCATE)
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    // SAFETY: see `ours`.
    told(unsafe { ours(file) }.handle.sync(), ffi::SQLITE_IOERR_FSYNC)
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, out: *mut i64) -> c_int {
    // SAFETY: see `ours`; `out` is valid during the call.
    unsafe {
        match ours(file).handle.length() {
            Ok(length) => {
                *out = length as i64;
                ffi::SQLITE_OK
            }
            Err(fault) => code(fault, ffi::SQLITE_IOERR_FSTAT),
        }
    }
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: see `ours`.
    let handle = &unsafe { ours(file) }.handle;
    let level = level as u8;
    let locked = handle.step("lock", u64::from(level), |file| file.locks.raise(handle.id, handle.owner.process, level));
    told(locked, ffi::SQLITE_IOERR_LOCK)
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: see `ours`.
    let handle = &unsafe { ours(file) }.handle;
    // The dead hold no locks.
    let _dead = handle.quietly(|file| file.locks.lower(handle.id, level as u8));
    ffi::SQLITE_OK
}

unsafe extern "C" fn check_reserved_lock(file: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    // SAFETY: see `ours`; `out` is valid during the call.
    unsafe {
        match ours(file).handle.quietly(|file| file.locks.is_reserved()) {
            Ok(reserved) => {
                *out = c_int::from(reserved);
                ffi::SQLITE_OK
            }
            Err(fault) => code(fault, ffi::SQLITE_IOERR_CHECKRESERVEDLOCK),
        }
    }
}

unsafe extern "C" fn file_control(file: *mut ffi::sqlite3_file, operation: c_int, out: *mut c_void) -> c_int {
    if operation == ffi::SQLITE_FCNTL_LOCKSTATE {
        // SAFETY: see `ours`; for this operation `out` is an int.
        unsafe {
            let handle = &ours(file).handle;
            *out.cast::<c_int>() = c_int::from(handle.quietly(|file| file.locks.level(handle.id)).unwrap_or(NONE));
        }
        return ffi::SQLITE_OK;
    }
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn sector_size(_: *mut ffi::sqlite3_file) -> c_int {
    512
}

/// As the system's own VFS has it: a write that is torn leaves alone what stands beside it. Without this promise SQLite
/// fills the WAL up to the next sector with frames that it syncs with the commit after: should that sync fail, then the
/// system forgets them, and every later commit stands behind a hole.
unsafe extern "C" fn device_characteristics(_: *mut ffi::sqlite3_file) -> c_int {
    ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE
}

unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    region: c_int,
    size: c_int,
    make: c_int,
    out: *mut *mut c_void,
) -> c_int {
    // SAFETY: see `ours`; `out` is valid during the call. The region is made of cells and kept alive by the file object.
    unsafe {
        *out = std::ptr::null_mut();
        let open = ours(file);
        let (id, process) = (open.handle.id, open.handle.owner.process);
        let mapped =
            open.handle.quietly(|file| file.shared.map(id, process, region as usize, size as usize, make != 0));
        match mapped {
            Ok(Some(region)) => {
                *out = region.as_ptr().cast_mut().cast();
                if !open.regions.iter().any(|kept| std::rc::Rc::ptr_eq(kept, &region)) {
                    open.regions.push(region);
                }
                ffi::SQLITE_OK
            }
            Ok(None) => ffi::SQLITE_OK,
            Err(fault) => code(fault, ffi::SQLITE_IOERR_SHMMAP),
        }
    }
}

unsafe extern "C" fn shm_lock(file: *mut ffi::sqlite3_file, from: c_int, count: c_int, flags: c_int) -> c_int {
    // SAFETY: see `ours`.
    let handle = &unsafe { ours(file) }.handle;
    let (from, count) = (from as usize, count as usize);
    if flags & ffi::SQLITE_SHM_UNLOCK != 0 {
        // The dead hold no locks.
        let _dead = handle.quietly(|file| file.shared.unlock(handle.id, from, count));
        return ffi::SQLITE_OK;
    }
    let exclusive = flags & ffi::SQLITE_SHM_EXCLUSIVE != 0;
    let detail = (from << 8 | count << 1) as u64 | u64::from(exclusive);
    let locked = handle.step("shared lock", detail, |file| file.shared.lock(handle.id, from, count, exclusive));
    told(locked, ffi::SQLITE_IOERR_SHMLOCK)
}

unsafe extern "C" fn shm_barrier(file: *mut ffi::sqlite3_file) {
    // SAFETY: see `ours`.
    let handle = &unsafe { ours(file) }.handle;
    // It cannot fail: whoever dies here goes on writing to the shared memory, which `bury` undoes.
    let _dead = handle.step("barrier", 0, |_| Ok(()));
}

unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    // SAFETY: see `ours`.
    let handle = &unsafe { ours(file) }.handle;
    let _dead = handle.quietly(|file| file.shared.release(handle.id));
    ffi::SQLITE_OK
}
