package main

import (
	"os"

	"github.com/urfave/cli/v2"

	"github.com/shoal-p2p/shoal/cmd/internal/program"
)

var networkCommand = &cli.Command{
	Name:  "network",
	Usage: "print the network file of several tracker links",
	Description: `One file for --network then takes the place of several links for --tracker.
Links that their trackers have printed for relays only have no entry relays, and
a file made of them alone is for relays too.

Example: shoal network --tracker LINK --tracker LINK > network.json`,
	Flags: []cli.Flag{trackerFlag},
	Action: func(c *cli.Context) error {
		if !c.IsSet("tracker") {
			return program.Usagef("--tracker is required: repeat it for each tracker")
		}
		n, err := fromLinks(c.StringSlice("tracker"))
		if err != nil {
			return err
		}
		_, err = os.Stdout.Write(n.File())
		return err
	},
}
