package event

import "github.com/provostd/provost/chain/record"

func (e *Event) loadFile(p *record.File) {
	if len(p.Path) > 0 {
		e.bytes(FilePath, p.Path)
		e.deferred(FileName)
		e.deferred(FileDirectory)
		if Extension(e.str[FilePath]) != "" {
			e.deferred(FileExtension)
		}
	}
	e.bytes(FileFilesystemPath, p.FilesystemPath)
	e.SetString(FileHow, p.How)
	e.nonzero(FileOperations, p.Operations)
	e.nonzero(FileBytesWritten, p.Bytes)
	e.bytes(FileLinkTarget, p.LinkTarget)
	e.digest(FileHashSHA256, p.Sha256)
	e.moment(FileMtime, p.Mtime)
	e.moment(FileCtime, p.Ctime)
	e.moment(FileCtimeBefore, p.CtimeBefore)
	e.moment(FileAtime, p.Atime)
	if len(p.Attribute) > 0 {
		e.bytes(FileAttribute, p.Attribute)
		e.SetNumber(FileAttributeSize, p.AttributeSize)
	}
	e.mask(FileAttributes, p.Attributes)
	e.loadFileFlags(p.Flags)
	if p.Inode == 0 {
		return // the object itself was not examined, only its path is known
	}
	e.SetNumber(FileInode, p.Inode)
	e.SetNumber(FileDevice, p.Device)
	e.SetNumber(FileSize, p.Size)
	e.SetNumber(FileSizeBefore, p.SizeBefore)
	e.SetNumber(FileUID, uint64(p.Uid))
	e.SetNumber(FileGID, uint64(p.Gid))
	e.nonzero(FileLinks, uint64(p.Links))
	e.nonzero(FileRdev, p.Rdev)
	if p.Mode != 0 {
		e.SetNumber(FileMode, uint64(p.Mode))
		e.SetBool(FileModeExecutable, p.Mode&0o111 != 0)
	}
	if p.ModeBefore != 0 {
		e.SetNumber(FileModeBefore, uint64(p.ModeBefore))
	}
}

func (e *Event) loadFileFlags(f uint32) {
	if f == 0 {
		return
	}
	e.SetBool(FileDeleted, f&record.FileDeleted != 0)
	e.SetBool(FileDetached, f&record.FileDetached != 0)
	e.SetBool(FilePathTruncated, f&record.FilePathTruncated != 0)
	e.SetBool(FileUserPath, f&record.FileUserPath != 0)
	e.SetBool(FileExchanged, f&record.FileExchanged != 0)
	e.SetBool(FileTemporary, f&record.FileTemporary != 0)
	e.SetBool(FileInMemory, f&record.FileMemory != 0)
	e.SetBool(FileInternal, f&record.FileInternal != 0)
}

func (e *Event) loadMount(m *record.Mount) {
	e.SetString(MountOperation, m.Operation)
	e.SetString(MountAPI, m.Api)
	e.bytes(MountSource, m.Source)
	e.bytes(MountType, m.Type)
	e.SetNumber(MountFlags, m.Flags)
	e.bytes(MountSourcePath, m.SourcePath)
}
