package setup

// Aria2 is aria2.
var Aria2 = register(aria2{})

// aria2 has no SOCKS for its peers, and no setting that shoal run needs.
type aria2 struct{}

func (aria2) Name() string         { return "aria2" }
func (aria2) Title() string        { return "aria2" }
func (aria2) NoSOCKS() string      { return "it has no SOCKS setting for its peers" }
func (aria2) Start() string        { return "" }
func (aria2) Command() string      { return "aria2c" }
func (aria2) Remedy(string) string { return "" }
func (aria2) programs() []string   { return []string{"aria2c"} }
