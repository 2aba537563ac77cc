package cloudtrail

// flaw is what can be wrong with an object's bytes, or with one record's. The
// texts stand behind "reading record 50 at inflated byte 71234: ".
type flaw uint8

const (
	sound flaw = iota // nothing is wrong

	// Of a value. short is no flaw yet where more bytes may come.
	short
	syntax
	encoding
	deep

	// Of a record or of a member beside Records.
	long
	scalar

	// Of the envelope.
	blank
	byteOrder
	noEnvelope
	noRecords
	noArray
	longMember
	behindEnvelope

	// Of the compressed object.
	bomb
	nothing
	notGzip
	plainJSON
	cutOff
	damaged
	checksum
	behindMember
)

var flaws = [...]string{
	sound:          "nothing is wrong",
	short:          "the object ends in the middle",
	syntax:         "this is not valid JSON",
	encoding:       "a string is not valid UTF-8",
	deep:           "values are nested too deep",
	long:           "the record is larger than a record may be",
	scalar:         "the record is no JSON object",
	blank:          "the object is empty",
	byteOrder:      "the object begins with a byte order mark",
	noEnvelope:     "the object is neither an envelope nor an array of records",
	noRecords:      "the envelope has no member Records",
	noArray:        "the member Records is no array",
	longMember:     "a member beside Records is larger than a record may be",
	behindEnvelope: "something follows the envelope",
	bomb:           "the object inflates to more than 16 MiB and 200 times its stored size",
	nothing:        "the object has not a single byte",
	notGzip:        "the object is not gzip",
	plainJSON:      "the object is not gzip but plain JSON",
	cutOff:         "the object ends before its gzip stream does",
	damaged:        "the gzip stream is damaged",
	checksum:       "the CRC or length of the gzip stream is wrong",
	behindMember:   "something follows the gzip stream",
}

// Error returns what is wrong.
func (f flaw) Error() string { return flaws[f] }
