package checkpoint

import "os"

// adopt does nothing: a file inherits who may open it from its directory.
func adopt(*os.File) error { return nil }
