#!/usr/bin/env node
// The protoc plugin: `buf generate` runs it, see README.md.

import { runNodeJs } from "@bufbuild/protoplugin";
import { meshPlugin } from "./plugin.ts";

runNodeJs(meshPlugin);
