package setup

// RTorrent is rTorrent.
var RTorrent = register(rTorrent{})

// rTorrent has no SOCKS for its peers, and no setting that shoal run needs.
type rTorrent struct{}

func (rTorrent) Name() string         { return "rtorrent" }
func (rTorrent) Title() string        { return "rTorrent" }
func (rTorrent) NoSOCKS() string      { return "it has no SOCKS setting for its peers" }
func (rTorrent) Start() string        { return "" }
func (rTorrent) Command() string      { return "rtorrent" }
func (rTorrent) Remedy(string) string { return "" }
func (rTorrent) programs() []string   { return []string{"rtorrent"} }
