// Says which of the files are not formatted as `terraform fmt` does it: that command is made of the same library. With -write it formats them.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclwrite"
)

func main() {
	write := flag.Bool("write", false, "format the files instead of saying which are not")
	flag.Parse()
	passed, failed := 0, 0
	for _, file := range flag.Args() {
		if problem := check(file, *write); problem != "" {
			fmt.Printf("%s: %s\n", file, problem)
			failed++
		} else {
			passed++
		}
	}
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 {
		os.Exit(1)
	}
}

// check returns what is wrong with a file, or nothing.
func check(file string, write bool) string {
	source, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	if _, problems := hclwrite.ParseConfig(source, file, hcl.InitialPos); problems.HasErrors() {
		return problems.Error()
	}
	formatted := hclwrite.Format(source)
	if bytes.Equal(source, formatted) {
		return ""
	}
	if write {
		if err := os.WriteFile(file, formatted, 0o644); err != nil {
			return err.Error()
		}
		return ""
	}
	return "not formatted; npm run test:terraform -- --write repairs it"
}
