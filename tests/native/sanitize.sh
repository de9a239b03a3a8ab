#!/usr/bin/env bash
# Builds the native core with the address and undefined-behaviour sanitizers, then with the thread sanitizer, on
# std::thread instead of OpenMP, and drives it.
set -euo pipefail
cd "$(dirname "$0")/../.."
native=embtables/native
out=build/sanitize
kernels=(rows/row_kernels rows/update_kernel keys/map_kernel keys/rank_kernel)
core=(base/isa base/memory base/parallel rows/bucket_order rows/table_rows rows/row_image keys/key_map keys/key_index
    store/collisionless store/step store/store exchange/key_exchange serve/arena serve/served_map serve/served_table
    serve/served_store json/json_rows running/running_keys running/running_image join/key_slots join/joiner)
drives=(drive_store drive_map drive_served drive_requests drive_running drive_joiner)
declare -A flags=([scalar]="" [avx2]="-mavx2 -mbmi2" [avx512]="-mavx512f -mavx512bw -mavx512dq -mavx512vl -mbmi2")
for sanitizer in address,undefined thread; do
    folder=$out/${sanitizer/,/-}
    mkdir -p "$folder/drive"
    common=(-std=c++20 -O1 -g -ffp-contract=off -Wno-psabi "-fsanitize=$sanitizer" -fno-sanitize-recover=all
        -DEMBTABLES_STD_THREADS -I"$native")
    {
        for isa in "${!flags[@]}"; do
            for kernel in "${kernels[@]}"; do
                echo "g++ ${common[*]} ${flags[$isa]} -DEMBTABLES_KERNEL=$isa -c $native/$kernel.cpp" \
                    "-o $folder/${kernel#*/}-$isa.o"
            done
        done
        for file in "${core[@]}"; do echo "g++ ${common[*]} -c $native/$file.cpp -o $folder/${file#*/}.o"; done
        for drive in "${drives[@]}"; do
            echo "g++ ${common[*]} -c tests/native/$drive.cpp -o $folder/drive/$drive.o"
        done
    } | xargs -P "$(nproc)" -I{} bash -c "{}"
    echo "== $sanitizer"
    for drive in "${drives[@]}"; do
        g++ "-fsanitize=$sanitizer" "$folder"/*.o "$folder/drive/$drive.o" -ldl -lpthread -o "$folder/drive/$drive"
        "$folder/drive/$drive"
    done
done
