//! The kind of file system that a store is on.
//!
//! A WAL needs memory that all its users share, and locks that hold for all of them. A network provides neither.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use rustix::fs::{major, minor, statfs};

use crate::error::{Error, Kind, Result};

/// The kernel's numbers of file systems that reach over a network, or to the host of a virtual machine.
const NETWORK: &[(u32, &str)] = &[
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x0102_1997, "9p"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "AFS"),
    (0x00c3_6400, "Ceph"),
    (0x7375_7245, "Coda"),
    (0x564c, "NCP"),
    (0x0bd0_0bd0, "Lustre"),
    (0x0116_1970, "GFS2"),
    (0x7461_636f, "OCFS2"),
    (0x786f_4256, "vboxsf"),
];

/// The number of all file systems that a program serves.
const FUSE: u32 = 0x6573_5546;

/// Those of them that reach over a network. Others, such as those that encrypt or join folders, are local.
const NETWORK_FUSE: &str = "sshfs rclone s3fs gcsfuse goofys glusterfs ceph-fuse curlftpfs smbnetfs juicefs blobfuse2 \
    gvfsd-fuse kio-fuse";

/// Refuses a store on a file system where its calls are not safe. If there is no file yet, this checks its folder.
pub(in crate::store) fn refuse_network(path: &Path) -> Result<()> {
    let Some(name) = path.ancestors().find(|place| place.exists()).and_then(network) else { return Ok(()) };
    let message = format!("the store `{}` would be on a network file system ({name})", path.display());
    Err(Error::new(Kind::Io, message)
        .with_hint("SQLite loses or damages data there; put the store on a local disk of the machine that uses it"))
}

fn network(place: &Path) -> Option<&'static str> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "such a number has 32 bits")]
    let number = statfs(place).ok()?.f_type as u32;
    if number == FUSE {
        let device = fs::metadata(place).ok()?.dev();
        return network_fuse(&fs::read_to_string("/proc/self/mountinfo").ok()?, device);
    }
    NETWORK.iter().find(|(magic, _)| *magic == number).map(|(_, name)| *name)
}

/// Which program of [`NETWORK_FUSE`] serves a device.
fn network_fuse(mounts: &str, device: u64) -> Option<&'static str> {
    let device = format!("{}:{}", major(device), minor(device));
    let line = mounts.lines().find(|line| line.split(' ').nth(2) == Some(&device))?;
    let program = line.split_once(" - ")?.1.split(' ').next()?.strip_prefix("fuse.")?;
    NETWORK_FUSE.split(' ').find(|name| *name == program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_that_serve_file_systems() {
        let mounts = "22 1 254:0 / / rw,relatime - ext4 /dev/root rw\n\
            40 22 0:33 / /far rw,nosuid shared:7 - fuse.sshfs me@host:/ rw,user_id=0\n\
            41 22 0:34 / /secret rw,nosuid - fuse.gocryptfs /cipher rw,user_id=0\n\
            42 22 0:35 / /own rw,nosuid - fuse none rw,user_id=0\n";
        let serves = |minor| network_fuse(mounts, rustix::fs::makedev(0, minor));
        assert_eq!([33, 34, 35, 36].map(serves), [Some("sshfs"), None, None, None]);
    }
}
