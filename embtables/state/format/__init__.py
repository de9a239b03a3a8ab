"""What the files of a version hold, byte by byte: manifest, Arrow and safetensors files. See docs/format.md."""
