// The server "grpc-go" of `npm run bench -- rpc`: grpc-go with the handler of bench/rpc-subject.ts and nothing else.
//
// It prints its port, then for each line it reads the processor time of its process so far in microseconds. It ends with its input.
package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

type getListingRequest struct {
	listingID string
}

type money struct {
	currencyCode string
	amountMinor  int64
}

type listing struct {
	listingID         string
	sellerID          string
	state             int32
	title             string
	condition         int32
	price             money
	createTimeSeconds int64
}

type getListingResponse struct {
	listing *listing
}

func getListing(_ context.Context, _ *getListingRequest) (*getListingResponse, error) {
	return &getListingResponse{listing: &listing{
		listingID:         "0198a0de-0000-7000-8000-000000000001",
		sellerID:          "0198a0de-0000-7000-8000-00000000a11c",
		state:             2,
		title:             "A lamp of brass",
		condition:         4,
		price:             money{currencyCode: "USD", amountMinor: 5000},
		createTimeSeconds: 1_700_000_000,
	}}, nil
}

// codec reads and writes the two messages by hand, which costs no more than generated code would, and needs no generator.
type codec struct{}

func (codec) Name() string { return "proto" }

func (codec) Unmarshal(data mem.BufferSlice, message any) error {
	buffer := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buffer.Free()
	request := message.(*getListingRequest)
	for rest := buffer.ReadOnlyData(); len(rest) > 0; {
		number, kind, size := protowire.ConsumeTag(rest)
		if size < 0 {
			return protowire.ParseError(size)
		}
		rest = rest[size:]
		if number == 1 && kind == protowire.BytesType {
			var value []byte
			value, size = protowire.ConsumeBytes(rest)
			request.listingID = string(value)
		} else {
			size = protowire.ConsumeFieldValue(number, kind, rest)
		}
		if size < 0 {
			return protowire.ParseError(size)
		}
		rest = rest[size:]
	}
	return nil
}

func (codec) Marshal(message any) (mem.BufferSlice, error) {
	bytes := appendMessage(nil, 1, appendListing(nil, message.(*getListingResponse).listing))
	return mem.BufferSlice{mem.SliceBuffer(bytes)}, nil
}

func appendListing(to []byte, from *listing) []byte {
	to = appendString(to, 1, from.listingID)
	to = appendString(to, 2, from.sellerID)
	to = appendVarint(to, 3, uint64(from.state))
	to = appendString(to, 4, from.title)
	to = appendVarint(to, 8, uint64(from.condition))
	price := appendVarint(appendString(nil, 1, from.price.currencyCode), 2, uint64(from.price.amountMinor))
	to = appendMessage(to, 9, price)
	return appendMessage(to, 16, appendVarint(nil, 1, uint64(from.createTimeSeconds)))
}

func appendString(to []byte, number protowire.Number, value string) []byte {
	return protowire.AppendString(protowire.AppendTag(to, number, protowire.BytesType), value)
}

func appendMessage(to []byte, number protowire.Number, value []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(to, number, protowire.BytesType), value)
}

func appendVarint(to []byte, number protowire.Number, value uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(to, number, protowire.VarintType), value)
}

var catalog = grpc.ServiceDesc{
	ServiceName: "marketplace.catalog.v1.CatalogService",
	Methods: []grpc.MethodDesc{{
		MethodName: "GetListing",
		Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			request := new(getListingRequest)
			if err := decode(request); err != nil {
				return nil, err
			}
			return getListing(ctx, request)
		},
	}},
}

func cpuUs() int64 {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		panic(err)
	}
	return (used.Utime.Nano() + used.Stime.Nano()) / 1000
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	server := grpc.NewServer(grpc.ForceServerCodecV2(codec{}))
	server.RegisterService(&catalog, nil)
	go func() { panic(server.Serve(listener)) }()
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	for questions := bufio.NewScanner(os.Stdin); questions.Scan(); {
		fmt.Println(cpuUs())
	}
}
