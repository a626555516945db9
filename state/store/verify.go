package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// verify reads a bbolt file page by page and says what is wrong with its
// structure; nil when it is sound. bbolt's own check runs on the mapped file,
// where a bad page number means a fault that ends the process or a loop that
// never ends; this one checks every number before it follows it.
func verify(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() == 0 {
		return errors.New("the file is empty")
	}
	m, err := newestMeta(f)
	if err != nil {
		return err
	}
	if int64(m.pages) > info.Size()/int64(m.pageSize) {
		return fmt.Errorf("the file ends at byte %d but holds %d pages of %d bytes", info.Size(), m.pages, m.pageSize)
	}
	w := walker{file: f, meta: m, used: map[uint64]bool{0: true, 1: true}}
	if err := w.tree(m.root, span{}, 0); err != nil {
		return err
	}
	return w.freelist()
}

// The parts of bbolt's file format, version 2, little endian.
const (
	boltMagic   = 0xED0CDAED
	boltVersion = 2

	headerSize  = 16 // page: id 8, flags 2, count 2, overflow 4
	elementSize = 16 // leaf: flags, pos, ksize, vsize; branch: pos, ksize, pgid 8
	bucketSize  = 16 // root 8, sequence 8
	metaSize    = 64

	branchPage   = 0x01
	leafPage     = 0x02
	freelistPage = 0x10
	bucketLeaf   = 0x01

	noFreelist = ^uint64(0)
	maxDepth   = 64 // far beyond any tree of ours
)

type meta struct {
	pageSize              uint32
	root, freelist, pages uint64
	txid                  uint64
}

func newestMeta(f io.ReaderAt) (meta, error) {
	first, err := readMeta(f, 0)
	sizes := []int64{4096, 8192, 16384, 65536}
	if err == nil {
		sizes = []int64{int64(first.pageSize)}
	}
	for _, at := range sizes {
		second, err2 := readMeta(f, at)
		if err2 != nil || int64(second.pageSize) != at {
			continue
		}
		if err != nil || second.txid > first.txid {
			return second, nil
		}
	}
	return first, err
}

func readMeta(f io.ReaderAt, at int64) (meta, error) {
	b := make([]byte, metaSize)
	if _, err := f.ReadAt(b, at+headerSize); err != nil {
		return meta{}, errors.New("the file ends before its first page does")
	}
	le := binary.LittleEndian
	if le.Uint32(b) != boltMagic || le.Uint32(b[4:]) != boltVersion {
		return meta{}, errors.New("the file is no store (wrong first bytes)")
	}
	sum := fnv.New64a()
	_, _ = sum.Write(b[:56])
	if sum.Sum64() != le.Uint64(b[56:]) {
		return meta{}, errors.New("the checksum of the first pages is wrong")
	}
	m := meta{pageSize: le.Uint32(b[8:]), root: le.Uint64(b[16:]), freelist: le.Uint64(b[32:]), pages: le.Uint64(b[40:]), txid: le.Uint64(b[48:])}
	if m.pageSize < 512 || m.pageSize > 1<<20 || m.pages > 1<<40 {
		return meta{}, errors.New("the sizes on the first pages are impossible")
	}
	return m, nil
}

type walker struct {
	file io.ReaderAt
	meta meta
	used map[uint64]bool // pages that something refers to
}

// page reads a page with its overflow and marks it as used.
func (w *walker) page(id uint64) ([]byte, error) {
	if id < 2 || id >= w.meta.pages {
		return nil, fmt.Errorf("page %d does not exist", id)
	}
	size := int64(w.meta.pageSize)
	head := make([]byte, headerSize)
	if _, err := w.file.ReadAt(head, int64(id)*size); err != nil {
		return nil, fmt.Errorf("read page %d: %w", id, err)
	}
	if got := binary.LittleEndian.Uint64(head); got != id {
		return nil, fmt.Errorf("page %d says that it is page %d", id, got)
	}
	more := uint64(binary.LittleEndian.Uint32(head[12:]))
	if more >= w.meta.pages-id {
		return nil, fmt.Errorf("page %d runs past the end", id)
	}
	for i := id; i <= id+more; i++ {
		if w.used[i] {
			return nil, fmt.Errorf("page %d is used twice", i)
		}
		w.used[i] = true
	}
	b := make([]byte, int64(more+1)*size)
	if _, err := w.file.ReadAt(b, int64(id)*size); err != nil {
		return nil, fmt.Errorf("read page %d: %w", id, err)
	}
	return b, nil
}

// span is the range of keys that a parent allows: from is the first one, to comes
// after the last. Empty means no limit; no key is empty.
type span struct{ from, to string }

func (w *walker) tree(id uint64, keys span, depth int) error {
	if depth > maxDepth {
		return errors.New("its tree is too deep")
	}
	b, err := w.page(id)
	if err != nil {
		return err
	}
	switch flags := binary.LittleEndian.Uint16(b[8:]); flags {
	case branchPage:
		return w.branch(b, id, keys, depth)
	case leafPage:
		return w.leaf(b, id, keys, depth)
	default:
		return fmt.Errorf("page %d is of an unknown kind (%#x)", id, flags)
	}
}

func (w *walker) branch(b []byte, id uint64, keys span, depth int) error {
	le := binary.LittleEndian
	n := int(le.Uint16(b[10:]))
	if n == 0 {
		return fmt.Errorf("page %d is an empty branch", id)
	}
	froms, children := make([]string, n), make([]uint64, n)
	order := keyOrder{page: id, span: keys}
	for i := range n {
		at := headerSize + i*elementSize
		if at+elementSize > len(b) {
			return fmt.Errorf("page %d is cut off", id)
		}
		key, err := slice(b, at, le.Uint32(b[at:]), le.Uint32(b[at+4:]), id)
		if err != nil {
			return err
		}
		if err := order.next(key); err != nil {
			return err
		}
		froms[i], children[i] = string(key), le.Uint64(b[at+8:])
	}
	for i, child := range children {
		inner := span{froms[i], keys.to}
		if i+1 < n {
			inner.to = froms[i+1]
		}
		if err := w.tree(child, inner, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) leaf(b []byte, id uint64, span span, depth int) error {
	le := binary.LittleEndian
	keys := keyOrder{page: id, span: span}
	for i := range int(le.Uint16(b[10:])) {
		at := headerSize + i*elementSize
		if at+elementSize > len(b) {
			return fmt.Errorf("page %d is cut off", id)
		}
		pos, ksize, vsize := le.Uint32(b[at+4:]), le.Uint32(b[at+8:]), le.Uint32(b[at+12:])
		kv, err := slice(b, at, pos, ksize, id)
		if err != nil {
			return err
		}
		if err := keys.next(kv); err != nil {
			return err
		}
		value, err := slice(b, at+int(ksize), pos, vsize, id)
		if err != nil {
			return err
		}
		if le.Uint32(b[at:])&bucketLeaf != 0 {
			if err := w.bucket(value, id, depth); err != nil {
				return err
			}
		}
	}
	return nil
}

// bucket follows a nested bucket: its own tree, or one page inside the value.
func (w *walker) bucket(value []byte, id uint64, depth int) error {
	le := binary.LittleEndian
	if len(value) < bucketSize {
		return fmt.Errorf("a bucket on page %d is cut off", id)
	}
	if root := le.Uint64(value); root != 0 {
		return w.tree(root, span{}, depth+1)
	}
	inline := value[bucketSize:]
	if len(inline) < headerSize || le.Uint16(inline[8:]) != leafPage || depth > maxDepth {
		return fmt.Errorf("a bucket on page %d is not readable", id)
	}
	return w.leaf(inline, id, span{}, depth+1)
}

// freelist checks that no page is both free and in use.
func (w *walker) freelist() error {
	if w.meta.freelist == noFreelist {
		return errors.New("its list of free pages is missing")
	}
	b, err := w.page(w.meta.freelist)
	if err != nil {
		return err
	}
	le := binary.LittleEndian
	if le.Uint16(b[8:]) != freelistPage {
		return errors.New("its list of free pages is not readable")
	}
	n, at := uint64(le.Uint16(b[10:])), headerSize
	if n == 0xFFFF {
		n, at = le.Uint64(b[headerSize:]), headerSize+8
	}
	if n > uint64(len(b)-at)/8 {
		return errors.New("its list of free pages is cut off")
	}
	for i := range int(n) {
		id := le.Uint64(b[at+8*i:])
		if id < 2 || id >= w.meta.pages || w.used[id] {
			return fmt.Errorf("page %d is listed as free but is not", id)
		}
		w.used[id] = true
	}
	return nil
}

// slice is the part of page b that an element at offset at points to.
func slice(b []byte, at int, pos, size uint32, id uint64) ([]byte, error) {
	from := uint64(at) + uint64(pos)
	if from+uint64(size) > uint64(len(b)) {
		return nil, fmt.Errorf("an entry of page %d points outside of it", id)
	}
	return b[from : from+uint64(size)], nil
}

// keyOrder checks that the keys of a page ascend within their span.
type keyOrder struct {
	page uint64
	span span
	last string
	any  bool
}

func (o *keyOrder) next(key []byte) error {
	k := string(key)
	ok := k > o.last && (o.span.to == "" || k < o.span.to)
	if !o.any && o.span.from != "" {
		// bbolt finds a page again by its first key.
		ok = ok && k == o.span.from
	}
	if !ok {
		return fmt.Errorf("the keys of page %d are out of order", o.page)
	}
	o.last, o.any = k, true
	return nil
}
